from __future__ import annotations

from pathlib import Path

import pytest
from filetest import FileTest
from guarded import guarded

from tcc.runtime import arenas


@pytest.fixture(autouse=True)
def guard_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel may leave the memory that its function takes."""
    monkeypatch.setattr(arenas, "_map", guarded)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write what the compiler prints now into the .tcir tests"
    )


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    # those in regressions/ are whole programs, which test_fuzz.py runs natively
    if file_path.suffix != ".tcir" or file_path.parent.name == "regressions":
        return None
    return FileTest.from_parent(parent, path=file_path)
