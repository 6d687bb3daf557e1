"""Convolutions on sm_90a by its emulated tile copies of pixels and warpgroup products; nothing of it ran on a real one yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Array, lowered, run_program

from tcc.codegen.gpu import hopper, hopper_convolutions
from tcc.ir import dims
from tcc.ir.arrays import rounded
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import gpu_pipeline
from tcc.runtime.device_program import DeviceProgram, Launch

PLAIN: dict[str, Any] = dict(strides=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1)


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small convolutions take this form, and a block takes several tiles."""
    monkeypatch.setattr(hopper, "LEAST_TILES", 0)
    monkeypatch.setattr(hopper, "MULTIPROCESSORS", 2)
    monkeypatch.setattr(hopper_convolutions, "LEAST_WORK", 0)
    monkeypatch.setattr(hopper_convolutions, "SHARE", 1 << 20)


def convolution(
    row: str, image: Any, filters: Any, dtype: str = "bf16", **geometry: Any
) -> tuple[Func, list[Array]]:
    attrs = PLAIN | geometry
    space = range(len(image) - 2)
    attrs = {k: v if k == "groups" else v[: (2 if k == "pads" else 1) * len(space)] for k, v in attrs.items()}
    pixels = []
    for a in space:
        reach = (filters[2 + a] - 1) * attrs["dilation"][a] + 1
        low, high = attrs["pads"][2 * a : 2 * a + 2]
        pixels.append((image[2 + a] + low + high - reach) // attrs["strides"][a] + 1)
    result = (image[0], filters[0], *pixels)
    shapes = {"conv": (image, filters), "conv_input": (filters, result), "conv_filter": (image, result)}[row]
    if row != "conv":
        attrs["size"] = image[2:] if row == "conv_input" else filters[2:]
    block = Block()
    b = Builder(block)
    values = [block.add_param(Type(dtype, s), n) for n, s in zip("ab", shapes)]
    b.op("yield", b.op(row, *values, attrs=attrs).result)
    rng = np.random.default_rng(0)
    args: list[Any] = [rng.standard_normal(s).astype("f4") for s in shapes]
    how = {"bf16": rounded, "f16": lambda a: a.astype("f2"), "f32": lambda a: a}[dtype]
    return Func(row, block), [how(a) for a in args]


def program_of(func: Func) -> DeviceProgram:
    g = clone(func, {})
    run(g, gpu_pipeline(), Context())
    return lowered(g, tile_maps=True)


def launched(program: DeviceProgram) -> list[str]:
    return [s.kernel.split("_")[1] for s in program.walk() if isinstance(s, Launch)]


def check(func: Func, args: list[Array], most: float = 2.0**-7) -> list[str]:
    program = program_of(func)
    names = launched(program)
    assert "warpgroups" in names
    (want,) = interpret(func, *args)
    up, down = (run_program(program, func, args, d)[0] for d in (False, True))
    assert up.tobytes() == down.tobytes()
    np.testing.assert_allclose(up, want, rtol=most, atol=most * np.abs(want).max())
    return names


ONE_AXIS = ((3, 20, 90), (17, 20, 5))
CASES: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("conv", (2, 24, 9, 7), (72, 24, 3, 2), dict(pads=(1, 1, 1, 0))),
    (
        "conv",
        (3, 12, 9, 12),
        (10, 6, 2, 3),
        dict(strides=(2, 1), pads=(0, 2, 3, 1), dilation=(1, 2), groups=2),
    ),
    ("conv", *ONE_AXIS, dict(dtype="f16", strides=(3,), pads=(2, 4))),
    ("conv_input", (2, 24, 9, 7), (72, 24, 3, 2), dict(pads=(1, 1, 1, 0))),
    (
        "conv_input",
        (2, 6, 9, 12),
        (70, 3, 2, 3),
        dict(strides=(2, 1), pads=(0, 2, 3, 1), dilation=(1, 2), groups=2),
    ),
    ("conv_input", *ONE_AXIS, dict(dtype="f16", strides=(3,), pads=(2, 4))),
    ("conv_filter", (2, 72, 9, 7), (24, 72, 3, 2), dict(pads=(1, 1, 1, 0))),
    (
        "conv_filter",
        (4, 12, 7, 8),
        (10, 6, 2, 3),
        dict(strides=(2, 1), pads=(0, 2, 3, 1), dilation=(1, 2), groups=2),
    ),
    ("conv_filter", *ONE_AXIS, dict(dtype="f16", strides=(3,), pads=(2, 4))),
]


@pytest.mark.parametrize("row, image, filters, geometry", CASES)
def test_convolutions(row: str, image: Any, filters: Any, geometry: dict[str, Any]) -> None:
    check(*convolution(row, image, filters, **geometry))


def test_epilogues_and_numbers_of_images_of_run_time() -> None:
    """A bias, an activation and a residual; one program for all numbers of images, none among them."""
    block = Block()
    b = Builder(block)
    n = dims.name("n")
    x, w, bias, rest = (
        block.add_param(Type("bf16", shape), name)
        for name, shape in (
            ("x", (n, 20, 6, 7)),
            ("w", (9, 20, 3, 3)),
            ("bias", (9,)),
            ("rest", (n, 9, 6, 7)),
        )
    )
    made = b.op("conv", x, w, attrs=PLAIN | {"pads": (1, 1, 1, 1)}).result
    spread = b.broadcast(b.dimshuffle(bias, order=[-1, 0, -1, -1]), shape=list(made.type.shape))
    total = b.add(b.add(made, spread), rest)
    b.op("yield", b.maximum(total, b.const(0, made.type)))
    func = Func("layer", block)
    program = program_of(func)
    assert launched(program).count("warpgroups") == 1 and launched(program)[-1] in ("warpgroups", "parts")
    rng = np.random.default_rng(0)
    for images in (0, 1, 4):
        shapes = [[dims.evaluate(s, {"n": images}) for s in p.type.shape] for p in block.params]
        args: list[Any] = [rounded(rng.standard_normal(s).astype("f4")) for s in shapes]
        (want,) = interpret(func, *args)
        (got,) = run_program(program, func, args)
        np.testing.assert_allclose(got, want, rtol=2.0**-6, atol=2.0**-6 * np.abs(want).max(initial=1))


def test_parts_of_k_and_blocks_of_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tiles share a multiprocessor's part of k each, which another kernel adds up."""
    monkeypatch.setattr(hopper, "MULTIPROCESSORS", 4)
    monkeypatch.setattr(hopper_convolutions, "LEAST_SLICES", 2)
    for row in ("conv", "conv_input", "conv_filter"):
        shapes = ((2, 72, 6, 7), (72, 72, 2, 1)) if row != "conv_filter" else ((8, 66, 6, 7), (5, 66, 2, 1))
        assert check(*convolution(row, *shapes))[-1] == "parts"


def test_what_takes_other_instructions() -> None:
    """Float32; sizes that maps do not reach; groups of which one would meet the next one's pixels."""
    for name, row, image, filters, geometry in (
        ("good", "conv", (2, 24, 9, 7), (72, 24, 3, 2), {}),
        ("float32", "conv", (2, 24, 9, 7), (72, 24, 3, 2), {"dtype": "f32"}),
        ("far", "conv", (1, 8, 300, 7), (8, 8, 3, 2), {"dilation": (130, 1)}),
        ("groups", "conv_filter", (3, 12, 7, 8), (10, 6, 2, 3), {"groups": 2}),
        ("phases", "conv_input", (1, 8, 40, 40), (8, 8, 6, 6), {"strides": (5, 5)}),
    ):
        func, _ = convolution(row, image, filters, **geometry)
        assert launched(program_of(func)).count("warpgroups") == (name == "good"), name
