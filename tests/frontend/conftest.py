"""Every test starts with default flags.  What runs is interpreted, so that these tests are about the frontend; modules in
BOTH run as native code too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tcc

BOTH = frozenset(
    {
        "test_function",
        "test_updates",
        "test_scan",
        "test_scan_grad",
        "test_ifelse",
        "test_tangents",
        "test_debug",
        "test_checkpoints",
        "test_user_op",
        "test_indexing",
        "test_broadcast",
        "test_conv",
        "test_pool",
        "test_extra_ops",
        "test_fft",
        "test_ctc",
        "test_graphop",
        "test_inputs",
        "test_linalg",
        "test_linalg_grad",
        "test_messages",
        "test_onehot",
        "test_random",
        "test_selecting",
        "test_sparse",
        "test_special",
        "test_typed_list",
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    native = metafunc.module.__name__.rpartition(".")[2] in BOTH
    metafunc.parametrize(
        "settings", ["FAST_COMPILE", "FAST_RUN"] if native else ["FAST_COMPILE"], indirect=True
    )


@pytest.fixture(autouse=True)
def settings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Settings of one test do not reach the next."""
    with tcc.change_flags(mode=request.param, floatX="float64", cast_policy="custom"):
        yield
