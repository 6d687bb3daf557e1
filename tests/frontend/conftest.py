"""Every test starts with default flags; `FAST_COMPILE` interprets, so that these tests are about the frontend alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tcc


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    with tcc.change_flags(mode="FAST_COMPILE", floatX="float64", cast_policy="custom"):
        yield
