"""The package mapping in pyproject.toml, which nothing else checks before a wheel is made."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FLOORS = {
    "frontend": "tcc",
    **{name: f"tcc.{name}" for name in ("ir", "passes", "codegen", "runtime", "tools")},
}


def packages_on_disk() -> dict[str, str]:
    """Package name -> folder, for every folder of the floors that holds an __init__.py."""
    found = {}
    for floor, package in FLOORS.items():
        for init in (ROOT / floor).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / floor).parts
            found[".".join((package, *inside))] = str(init.parent.relative_to(ROOT))
    return found


def test_every_package_is_mapped_to_its_folder() -> None:
    """One that is not listed works in development and is missing from the wheel."""
    assert SETUP["package-dir"] == packages_on_disk()


def test_every_package_is_installed() -> None:
    assert sorted(SETUP["packages"]) == sorted(packages_on_disk())


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {file.parent for floor in FLOORS for file in (ROOT / floor).rglob("*.py")}
    assert [f for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "frontend" / "py.typed").exists()
    assert SETUP["package-data"]["tcc"] == ["py.typed"]
