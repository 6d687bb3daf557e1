"""What the documents show is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("codegen", "frontend", "ir", "passes", "runtime", "tests", "tools")
TOURS = [path for path in DOCUMENTS if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", TOURS, ids=lambda path: path.name)
def test_the_tour_prints_what_it_says(path: Path) -> None:
    """The Python blocks of a page are one program."""
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
    tour = doctest.DocTestParser().get_doctest(blocks, {}, path.name, str(path), 0)
    assert tour.examples
    assert doctest.DocTestRunner().run(tour).failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_files_that_the_architecture_names_are_there() -> None:
    named = set(re.findall(r"[\w/]+\.py\b", (ROOT / "docs" / "architecture.md").read_text()))
    found = {f"/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    assert named and [n for n in sorted(named) if not any(path.endswith(f"/{n}") for path in found)] == []


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named and named <= targets
