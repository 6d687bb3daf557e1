from __future__ import annotations

import pytest
from tiny import Build, build, function


@pytest.fixture
def make() -> Build:
    return lambda signature, text, **options: function(build(signature, text, **options))
