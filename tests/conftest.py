from __future__ import annotations

from pathlib import Path

import pytest
from filetest import FileTest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write what the compiler prints now into the .tcir tests"
    )


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    return FileTest.from_parent(parent, path=file_path) if file_path.suffix == ".tcir" else None
