from __future__ import annotations

import pytest
from guarded import guarded

from tcc.runtime import arenas


@pytest.fixture(autouse=True)
def guard_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel may leave the memory that its function takes."""
    monkeypatch.setattr(arenas, "_map", guarded)
