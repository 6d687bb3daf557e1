"""The examples choose float32 for the process that they run in: importing them here leaves the other tests their choice."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

import tcc

chosen = tcc.config.floatX
for name in ("lenet", "rbm", "user_op", "words"):
    import_module(name)
tcc.config.floatX = chosen


@pytest.fixture
def float32() -> Iterator[None]:
    """The choice of the examples."""
    tcc.config.floatX = "float32"
    yield
    tcc.config.floatX = chosen
