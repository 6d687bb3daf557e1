from __future__ import annotations

import pytest

from tcc.runtime import cache


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about code that is made, not about code that is found in a cache."""
    monkeypatch.setattr(cache, "_default", [cache.Cache(None)])
