"""Lays out build/link/tcc as the package looks once installed; type checkers and IDEs do not see the import hook."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def link(out: Path = ROOT / "build" / "link") -> Path:
    """Makes the folder `out` anew, for the checkers' search path."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders: dict[str, str] = config["tool"]["setuptools"]["package-dir"]
    shutil.rmtree(out, ignore_errors=True)
    for package in sorted(folders, key=lambda name: name.count(".")):
        target, source = out / package.replace(".", "/"), ROOT / folders[package]
        target.mkdir(parents=True)
        for entry in source.iterdir():
            if entry.is_file():
                (target / entry.name).symlink_to(entry)
    return out


if __name__ == "__main__":
    sys.stdout.write(f"{link()}\n")
