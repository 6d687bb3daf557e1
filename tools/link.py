"""Lays out build/link/tcc as the package looks once installed, for type checkers and editors.

They do not see the import hook with which setuptools maps `frontend/` to `tcc` and `ir/` to `tcc.ir`.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def package_dirs() -> dict[str, Path]:
    """Package name -> its folder, as pyproject.toml maps them; a parent comes before what it contains."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    return {name: ROOT / folder for name, folder in sorted(table.items())}


def link() -> Path:
    """Makes the links anew and returns the folder that holds `tcc`."""
    out = ROOT / "build" / "link"
    shutil.rmtree(out, ignore_errors=True)
    root = out / "tcc"
    root.mkdir(parents=True)
    for name, source in package_dirs().items():
        if name == "tcc":
            for entry in source.iterdir():
                if entry.name != "__pycache__":
                    (root / entry.name).symlink_to(entry)
            continue
        target = out / name.replace(".", "/")
        if not target.exists():  # a package inside a linked one is there already
            target.symlink_to(source, target_is_directory=True)
    return out


if __name__ == "__main__":
    print(link())
