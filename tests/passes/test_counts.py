"""How many kernels the example programs need.  A number that rises is lost fusion."""

from __future__ import annotations

from collections import Counter

import pytest
from programs import PROGRAMS

from tcc.passes.manager import Context, run
from tcc.passes.pipeline import default_pipeline

# (products, products with an epilogue, other kernels, other kernels that walk rows)
COUNTS = {
    "chain": (0, 0, 1, 0),
    "recurrent": (2, 0, 3, 1),
    "logistic_regression": (2, 0, 5, 0),
    "softmax_regression": (2, 0, 6, 1),
    "softmax_regression_by_hand": (2, 0, 6, 1),
    "mlp_tanh": (5, 2, 9, 1),
    "mlp_relu": (5, 2, 10, 1),
    "mlp_sigmoid": (5, 2, 9, 1),
}


def count(name: str) -> tuple[int, int, int, int]:
    func = PROGRAMS[name]()
    run(func, default_pipeline(), Context())
    found = Counter(op.name for op in func.body.walk())
    epilogues = sum(op.name == "matmul" and bool(op.blocks) for op in func.body.walk())
    rows = sum(op.name == "fuse" and bool(op.attrs["row"]) for op in func.body.walk())
    return found["matmul"], epilogues, found["fuse"], rows


@pytest.mark.parametrize("name", PROGRAMS)
def test_kernels(name: str) -> None:
    assert count(name) == COUNTS[name]
