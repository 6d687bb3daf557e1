"""Engines of libraries: less of them, the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tcc.codegen.jit import Image, compile_object, function
from tcc.codegen.products.gemm import engine
from tcc.codegen.products.matmul import Matmul, chosen_plan, matmul_kernel
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.reach import Possible
from tcc.codegen.products.record import (
    A_UNPACKED,
    DOT,
    PACK_EACH,
    PACK_FIRST,
    PACK_ROWS,
    PACK_TURN,
    ROW,
    ROW_PANELS,
    TILES,
    UNPACKED,
    Reach,
    engine_name,
)
from tcc.codegen.target import Target, host, plain
from tests.codegen.test_matmul import STAND_IN, Product, module, numbers, product

MODEL = Matmul(
    "f32", None, 300, 310, (310, 1), (300, 1), 300
)  # a batch of any size through a layer's weights
HEIGHTS = (0, 1, 2, 3, 5, 13, 14, 15, 28, 29, 31, 61)


def reduced(spec: Matmul, target: Target, threads: bool) -> tuple[Product, Reach]:
    """A product on an engine of its own, as a library has it."""
    t = target.vector({"f32": "float", "f64": "double"}[spec.dtype])
    kernel = matmul_kernel("k", spec, target)
    reach = replace(kernel.reach(), threads=threads)
    texts = [STAND_IN, *engine(t, target, reach).values()]
    shared = Image.load([compile_object(module(texts), target)])
    text = f"declare void @{engine_name(t)}(ptr, ptr)\n" + module([*kernel.declares, kernel.text])
    image = Image.load([compile_object(text, target)], {engine_name(t): shared.address(engine_name(t))})
    code = function(image.address("k"), ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    made = Product(spec, target, code, image, None)
    made.engine = shared  # type: ignore[attr-defined]  # whose code it calls
    return made, reach


@pytest.mark.parametrize("target", [host(), plain()], ids=["host", "plain"])
@pytest.mark.parametrize(
    "spec",
    [
        MODEL,
        replace(MODEL, b=(1, 310), accumulate=True),
        replace(MODEL, n=3, b=(3, 1), c=3, dtype="f64"),
        replace(MODEL, a=(1, None)),
        replace(MODEL, k=1100, a=(1100, 1)),
    ],
    ids=["NN", "NT", "few", "TN", "deep"],
)
def test_a_reduced_engine_gives_the_bits_of_the_whole(spec: Matmul, target: Target) -> None:
    whole = product(spec, target)
    assert spec.n is not None and spec.k is not None
    for threads in (False, True):
        part, _ = reduced(spec, target, threads)
        for m in HEIGHTS:
            a = numbers(m, spec.k, spec.dtype, spec.a[0] == 1, seed=1)
            b = numbers(spec.k, spec.n, spec.dtype, spec.b[0] == 1, seed=2)
            c = numbers(m, spec.n, spec.dtype, seed=3)
            if spec.a[0] == 1:
                a = np.asfortranarray(a)
            assert np.array_equal(part(a, b, c, threads=1 + 2 * threads), whole(a, b, c)), m


@pytest.mark.parametrize("columns", [1, -1, 2])
def test_products_whose_panels_may_be_kept_need_their_forms_too(columns: int) -> None:
    """Backwards columns are for tiles alone, their panels for one row too: without it C was never written."""
    kernel = matmul_kernel("k", replace(MODEL, b=(310, columns), kept=True), host())
    assert kernel.reach().forms >= {TILES, ROW_PANELS}


def test_what_plans_come_to() -> None:
    target = host()
    _, reach = reduced(MODEL, target, False)
    assert reach.forms == {TILES, ROW}
    assert reach.packs_a == {A_UNPACKED}
    assert reach.packs_b <= {UNPACKED, PACK_FIRST, *[PACK_ROWS] * (not target.avx512)}
    assert UNPACKED in reach.packs_b
    assert reduced(replace(MODEL, b=(1, 310)), target, False)[1].packs_b == {PACK_TURN, UNPACKED}
    few = reduced(replace(MODEL, n=2, b=(2, 1), c=2, dtype="f64"), target, False)[1]
    assert DOT in few.forms and PACK_EACH in few.packs_b


def test_every_plan_is_within_reach() -> None:
    """Of products of which any sizes and strides are known, with kept panels or without."""
    drawn = np.random.default_rng(3)
    sizes = (0, 1, 2, 4, 5, 8, 13, 16, 33, 64, 90, 128, 300, 650, 1100, 2600)

    def known(value: int | None) -> int | None:
        return value if drawn.random() < 0.6 else None

    def strides(rows: int, columns: int) -> tuple[int, int]:
        ways = [(columns, 1), (1, rows), (columns, -1), (1, -rows), (2 * columns, 2), (0, 1), (1, 0)]
        return ways[drawn.integers(len(ways))]

    for _ in range(300):
        target, dtype = (host(), plain())[drawn.integers(2)], ("f32", "f64")[drawn.integers(2)]
        m, n, k = (int(size) for size in drawn.choice(sizes, 3))
        a, b, kept, accumulate = strides(m, k), strides(k, n), drawn.random() < 0.5, drawn.random() < 0.2
        whole = Matmul(dtype, m, n, k, a, b, n, kept=kept, accumulate=accumulate)
        part = replace(whole, m=known(m), n=known(n), k=known(k), c=known(n))
        part = replace(part, a=(known(a[0]), known(a[1])), b=(known(b[0]), known(b[1])))
        reach = matmul_kernel("k", part, target).reach()
        plans = [chosen_plan(replace(whole, kept=False), target)]
        if kept and plans[0]["form"] != DOT:
            of_panels = (VECTORS * target.vector({"f32": "float", "f64": "double"}[dtype]).lanes, k)
            plans.append(chosen_plan(replace(whole, kept=False, panels=True, b=of_panels), target))
        for plan in plans:
            assert plan["form"] in reach.forms
            assert plan["form"] in (ROW, ROW_PANELS) or plan["pack_b"] in reach.packs_b
            if plan["form"] == TILES:
                assert plan["pack_a"] in reach.packs_a
                assert reach.resume or (int(plan["kc_most"]) >= k and not accumulate)


def values_of(x: Possible, name: int | str) -> Sequence[int]:
    values = x.of(name)
    return sorted(values.few) if values.few is not None else [values.least, values.most]


def test_what_sizes_may_be() -> None:
    x = Possible()
    some = x.anything()
    three = x.pick(x.less(some, 5), 1, 3)
    assert values_of(x, three) == [1, 3]
    assert values_of(x, x.mul(three, 2)) == [2, 6]
    assert x.less(x.min(some, 7), 8) == 1
    assert values_of(x, x.less(three, 2)) == [0, 1]
    assert values_of(x, x.either(x.less(some, 2), 1)) == [1]
    assert values_of(x, x.div(x.max(some, 10), 5))[0] == 2
