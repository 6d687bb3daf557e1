from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import Build, build, function

from tcc.runtime import cache


@pytest.fixture
def make() -> Build:
    return lambda signature, text, **options: function(build(signature, text, **options))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    saved = cache._default[:]
    cache._default[:] = [cache.Cache(folder)]
    yield folder
    cache._default[:] = saved
