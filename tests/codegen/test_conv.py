"""Convolution and its gradients as native code against their meaning in float64: many geometries, this machine's vectors and
the plain ones, known and run-time sizes, one thread and two, places of any strides."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from quick import quick_code

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func
from tcc.ir.optable import TABLE
from tcc.ir.types import Type
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline, default_pipeline
from tcc.runtime.threads import pool
from tcc.tools.compare import compile_native

TARGETS = {"host": {}, "plain256": {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "256"}, "plain128": {}}
TARGETS["plain128"] = {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "128"}
KINDS = [("host", "f32"), ("host", "f64"), ("plain128", "f64")]
KINDS += [pytest.param("plain256", "f32", marks=pytest.mark.long)]

# image, filters, strides, pads, dilation, groups
CASES = {
    "lenet": ((3, 1, 28, 28), (20, 1, 5, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "small images": ((3, 20, 12, 12), (50, 20, 5, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "padded": ((2, 5, 13, 17), (19, 5, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "full": ((2, 3, 5, 6), (4, 3, 3, 4), (1, 1), (2, 2, 3, 3), (1, 1), 1),
    "more padding than filter": ((1, 2, 4, 5), (3, 2, 2, 2), (1, 1), (3, 4, 5, 2), (1, 1), 1),
    "stride 2": ((2, 17, 40, 37), (33, 17, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "stride 4": ((3, 5, 9, 33), (17, 5, 3, 5), (1, 4), (1, 0, 2, 3), (1, 1), 1),
    "strides past filters": ((2, 3, 11, 40), (5, 3, 2, 1), (3, 5), (0, 1, 2, 0), (1, 1), 1),
    "stride and dilation": ((1, 3, 19, 23), (4, 3, 3, 3), (2, 3), (2, 1, 0, 3), (2, 2), 1),
    "groups": ((2, 6, 9, 9), (9, 2, 3, 3), (1, 1), (1, 0, 0, 1), (1, 1), 3),
    "depthwise": ((2, 7, 10, 9), (7, 1, 3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 7),
    "depthwise, many images": ((17, 5, 11, 20), (5, 1, 3, 5), (1, 2), (1, 0, 2, 2), (1, 1), 5),
    "few filters": ((9, 5, 12, 31), (2, 5, 5, 5), (1, 1), (2, 2, 1, 3), (1, 1), 1),
    "few filters, groups": ((2, 9, 13, 10), (6, 3, 4, 2), (2, 3), (0, 1, 1, 1), (1, 2), 3),
    "few filters, rank 3": ((2, 2, 4, 6, 9), (2, 1, 3, 2, 3), (1, 2, 1), (1, 1, 0, 0, 1, 0), (1,) * 3, 2),
    "few filters, rank 1": ((3, 2, 70), (1, 2, 9), (1,), (4, 4), (2,), 1),
    "1x1": ((2, 23, 7, 5), (31, 23, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1 to more channels": ((9, 16, 7, 5), (40, 16, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1, images in panels": ((17, 20, 9, 13), (33, 20, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1 groups": ((3, 16, 4, 8), (32, 8, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 2),
    "1x1x1": ((3, 9, 3, 5, 3), (14, 9, 1, 1, 1), (1, 1, 1), (0,) * 6, (1, 1, 1), 1),
    "whole vectors": ((2, 3, 8, 16), (17, 3, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "whole vectors, groups": ((2, 6, 7, 24), (10, 3, 3, 5), (1, 1), (1, 1, 2, 2), (1, 1), 2),
    "whole vectors, stride 2": ((3, 5, 14, 32), (9, 5, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "whole vectors, rank 3": ((2, 3, 4, 3, 16), (7, 3, 3, 2, 3), (1,) * 3, (1, 1, 0, 1, 1, 1), (1,) * 3, 1),
    "wide stride 2": ((1, 2, 9, 75), (20, 2, 3, 5), (2, 2), (1, 0, 2, 3), (1, 1), 1),
    "1x1 stride 2": ((2, 16, 9, 8), (32, 16, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "filters that are met once": ((2, 21, 5, 6), (1043, 21, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "filters that are met once, by input": (
        (1, 1034, 5, 4),
        (21, 1034, 2, 3),
        (1, 1),
        (1, 0, 1, 2),
        (1, 1),
        1,
    ),
    "filters that are met once, groups": ((3, 18, 6, 3), (1290, 9, 3, 1), (2, 1), (1, 1, 0, 0), (1, 1), 2),
    "filters that are met once, 1x1": ((2, 130, 3, 7), (1024, 130, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "narrower last tile": ((2, 17, 14, 14), (31, 17, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "taps that no tile holds": ((2, 3, 4, 30), (17, 3, 1, 9), (1, 1), (0, 0, 4, 3), (1, 1), 1),
    "one channel each": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "many channels, borders": ((9, 16, 6, 7), (20, 16, 4, 3), (1, 1), (3, 0, 1, 2), (2, 1), 1),
    "taps beyond the image": ((2, 9, 3, 5), (16, 9, 3, 2), (1, 1), (3, 4, 1, 0), (1, 1), 1),
    "rank 3, borders": ((2, 8, 4, 5, 6), (17, 8, 2, 3, 3), (1,) * 3, (1, 0, 1, 2, 1, 1), (1,) * 3, 1),
    "rank 1": ((3, 4, 50), (6, 4, 7), (2,), (3, 3), (1,), 1),
    "rank 3": ((2, 3, 6, 7, 8), (5, 3, 2, 3, 3), (1, 2, 1), (0, 1, 1, 1, 1, 0), (1, 1, 2), 1),
    "filters as wide as the image": ((3, 1, 11, 19), (9, 1, 3, 19), (1, 2), (1, 0, 0, 0), (1, 1), 1),
    "filters as wide, channels": ((2, 6, 8, 5), (10, 3, 3, 5), (2, 1), (0, 1, 0, 0), (2, 1), 2),
    "filters as high as the image": ((2, 4, 7, 21), (5, 4, 7, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "filters like the image": ((5, 6, 4, 3), (9, 2, 4, 3), (1, 1), (0, 0, 0, 0), (1, 1), 3),
    "filters like the image, rank 3": ((3, 2, 2, 3, 4), (7, 2, 2, 3, 4), (1,) * 3, (0,) * 6, (1,) * 3, 1),
    "patches": ((2, 3, 16, 15), (9, 3, 8, 5), (8, 5), (0, 0, 0, 0), (1, 1), 1),
    "patches of rows, groups": ((3, 4, 34, 7), (6, 2, 17, 2), (17, 1), (0, 0, 1, 0), (1, 1), 2),
    "filter too large": ((2, 3, 2, 5), (4, 3, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "no images": ((0, 3, 5, 5), (4, 3, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "no images, 1x1": ((0, 3, 5, 5), (4, 3, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "no channels": ((2, 0, 5, 5), (4, 0, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "no filters": ((2, 3, 5, 5), (0, 3, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "empty filters": ((2, 3, 5, 5), (4, 3, 0, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "empty filters, empty images": ((2, 3, 0, 5), (4, 3, 0, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
}
NAMED = ("", "n", "nhijklm")
FLAGS = ("strides", "pads", "dilation", "groups")
Case = tuple[Any, ...]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TARGETS[request.param].items():
        monkeypatch.setenv(name, value)


def numbers_of_threads() -> Iterator[int]:
    """One, and as many as the process has, which calls made meanwhile use."""
    threads = pool()
    try:
        for limit in sorted({1, threads.threads}):
            threads.limit = limit
            yield limit
    finally:
        threads.limit = threads.threads


def program(case: Case, dtype: str, named: str) -> Func:
    """The convolution of %x and %w, and its gradients for %g, of images n, of their spatial sizes hij and the filters' klm;
    those `named` are left to run time."""
    image, filters, *rest = case
    how = dict(zip(FLAGS, rest))
    names = iter("nhijklm")

    def size(n: int) -> dims.Size:
        name = next(names)
        return dims.name(name) if name in named else n

    x = Type(dtype, (size(image[0]), image[1], *map(size, image[2:])))
    w = Type(dtype, (*filters[:2], *map(size, filters[2:])))
    (y,) = TABLE["conv"].infer([x, w], how, [])
    block = Block([x, w, y], ["x", "w", "g"])
    b = Builder(block)
    px, pw, pg = block.params
    forward = b.op("conv", px, pw, attrs=how).result
    by_input = b.op("conv_input", pw, pg, attrs={"size": x.shape[2:], **how}).result
    by_filter = b.op("conv_filter", px, pg, attrs={"size": w.shape[2:], **how}).result
    b.op("yield", forward, by_input, by_filter)
    return Func("f", block)


def arguments(case: Case, dtype: str) -> list[Any]:
    rng = np.random.default_rng(0)
    (y,) = TABLE["conv"].infer([Type(dtype, case[0]), Type(dtype, case[1])], dict(zip(FLAGS, case[2:])), [])
    kind = {"f32": np.float32, "f64": np.float64}[dtype]
    return [rng.uniform(-1, 1, shape).astype(kind) for shape in (*case[:2], y.shape)]


def meaning(case: Case, args: list[Any]) -> list[Any]:
    how = dict(zip(FLAGS, case[2:]))
    x, w, g = (a.astype(np.float64) for a in args)
    conv, by_input, by_filter = (TABLE[n].ref for n in ("conv", "conv_input", "conv_filter"))
    assert conv and by_input and by_filter
    return [
        conv(x, w, **how),
        by_input(w, g, size=x.shape[2:], **how),
        by_filter(x, g, size=w.shape[2:], **how),
    ]


def close(got: Any, want: Any, sizes: Any, terms: int) -> None:
    """Within the probable error of a sum of `terms`, of absolute values `sizes` together (Higham and Mary, 2019)."""
    bound = np.finfo(got.dtype).eps * 2 * max(terms, 1) ** 0.5 * sizes
    assert got.shape == want.shape and np.all(np.abs(got - want) <= bound)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target, dtype", KINDS, indirect=["target"])
def test_is_the_convolution(name: str, dtype: str, target: None) -> None:
    case = CASES[name]
    args = arguments(case, dtype)
    runs = []
    for named in NAMED if dtype == "f32" else NAMED[::2]:
        # Filters that are known to be as wide as the image make another sum of it, so equal sizes are one.
        function, _ = compile_native(program(case, dtype, named), {}, exact=not named, apart=False)
        with quick_code(bool(named)):
            runs += [function(*args) for _ in numbers_of_threads()]
    x, w, y = (a.shape for a in args)
    terms = [int(np.prod(w[1:])), w[0] * int(np.prod(w[2:])), y[0] * int(np.prod(y[2:]))]
    for result in zip(runs[0], meaning(case, args), meaning(case, [*map(np.abs, args)]), terms, strict=True):
        close(*result)
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_places_of_any_strides() -> None:
    case = CASES["padded"]
    x, w, g = arguments(case, "f32")
    odd = [
        np.asfortranarray(x)[:, :, ::-1, :],
        np.ascontiguousarray(w.transpose(3, 1, 0, 2)).transpose(2, 1, 3, 0)[..., ::-1],
        np.repeat(g, 2, 3)[..., ::2],
    ]
    function, _ = compile_native(program(case, "f32", NAMED[-1]), {}, exact=False)
    dense = [np.ascontiguousarray(a) for a in odd]
    for a, b in zip(function(*odd), function(*dense), strict=True):
        np.testing.assert_array_equal(a, b)


def before_a_guarded_page(a: Any) -> tuple[Any, mmap.mmap]:
    """A copy of the array whose last byte is the last that may be read, and its memory."""
    whole = -(-a.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    copy = np.frombuffer(memory, a.dtype, a.size, whole - a.nbytes).reshape(a.shape)
    copy[:] = a
    end = np.frombuffer(memory, np.uint8).ctypes.data + whole
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0
    return copy, memory


@pytest.mark.parametrize("named", ["", "nhijklm"])
@pytest.mark.parametrize("image", [(2, 37, 5, 19), (3, 16, 1, 4), (1, 9, 6, 33)])
def test_channels_may_be_neighbours(image: tuple[int, ...], named: str) -> None:
    """Images whose channels follow one another have the sums of those whose pixels do."""
    case = (image, (6, image[1], 1, 3), (1, 1), (1, 1, 0, 2), (1, 1), 1)
    x, w, g = arguments(case, "f32")
    plain, _ = compile_native(program(case, "f32", named), {}, exact=False)
    how = dict(zip(FLAGS, case[2:]))
    func = program(case, "f32", named)
    types = [p.type for p in func.body.params]
    n, c, *space = types[0].shape
    block = Block([Type("f32", (n, *space, c)), *types[1:]], ["x", "w", "g"])
    b = Builder(block)
    px, pw, pg = block.params
    seen = b.dimshuffle(px, order=[0, 3, 1, 2])
    forward = b.op("conv", seen, pw, attrs=how).result
    by_filter = b.op("conv_filter", seen, pg, attrs={"size": types[1].shape[2:], **how}).result
    b.op("yield", forward, by_filter)
    turned, _ = compile_native(Func("f", block), {}, exact=False)
    there, _memory = before_a_guarded_page(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    y, _, gw = plain(x, w, g)
    for a, b_ in zip(turned(there, w, g), (y, gw), strict=True):
        np.testing.assert_array_equal(a, b_)


@pytest.mark.parametrize(
    "name",
    [
        "1x1",
        "1x1, images in panels",
        "1x1 groups",
        "narrower last tile",
        "padded",
        "whole vectors",
        "stride 2",
    ],
)
def test_nothing_behind_the_operands_is_read(name: str, target: None) -> None:
    args = arguments(CASES[name], "f32")
    function, _ = compile_native(program(CASES[name], "f32", ""), {}, exact=True)
    want = function(*args)
    guarded = [before_a_guarded_page(a) for a in args]
    for a, b in zip(function(*(copy for copy, _ in guarded)), want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_not_finite_stays_where_it_is_met() -> None:
    case = ((1, 1, 6, 6), (2, 1, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    x, w, g = arguments(case, "f32")
    x[0, 0, 2, 3], x[0, 0, 0, 5] = np.nan, np.inf
    assert (
        2 * len(w) <= 4
    )  # so that pixels are lanes of the gradient by the filters, too, where zeros follow a row
    function, _ = compile_native(program(case, "f32", ""), {}, exact=True)
    for got, want in zip(function(x, w, g), meaning(case, [x, w, g]), strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


BLOCKS = {"cheap": ("mul", "add"), "dear": ("tanh",)}


def with_block(case: Case, dtype: str, ops: tuple[str, ...], named: str) -> Func:
    """The convolution, to whose elements one number of each channel of %b and an element of %r are added, then `ops`."""
    image, filters, *rest = case
    how = dict(zip(FLAGS, rest))
    n: dims.Size = dims.name("n") if named else image[0]
    x, w = Type(dtype, (n, *image[1:])), Type(dtype, filters)
    (y,) = TABLE["conv"].infer([x, w], how, [])
    block = Block([x, w, Type(dtype, (filters[0],)), y], ["x", "w", "b", "r"])
    b = Builder(block)
    px, pw, pb, pr = block.params
    rank = y.rank
    order = [-1, 0, *[-1] * (rank - 2)]
    made = b.op("conv", px, pw, attrs=how).result
    made = b.add(made, b.broadcast(b.dimshuffle(pb, order=order), shape=list(y.shape)))
    for name in ops:
        made = b.op(name, made, *[pr] * (len(TABLE[name].operand_names) - 1)).result
    b.op("yield", made)
    return Func("f", block)


@pytest.mark.parametrize(
    "name",
    [
        "lenet",
        "padded",
        "stride 2",
        "groups",
        "1x1",
        "1x1, images in panels",
        "narrower last tile",
        "1x1x1",
        "whole vectors",
        "rank 1",
    ],
)
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_applied_to_every_element(name: str, kind: str, target: None) -> None:
    case = CASES[name]
    x, w, r = arguments(case, "f32")
    bias = np.linspace(-1, 1, len(w), dtype=np.float32)
    conv = TABLE["conv"].ref
    assert conv
    wide = conv(x.astype(np.float64), w.astype(np.float64), **dict(zip(FLAGS, case[2:])))
    wide = wide + bias.reshape(-1, *[1] * (x.ndim - 2))
    want = np.tanh(wide) if kind == "dear" else wide * r + r
    for named in ("", "n"):
        func = with_block(case, "f32", BLOCKS[kind], named)
        function, _ = compile_native(func, {}, exact=not named)
        with quick_code(bool(named)):
            (got,) = function(x, w, bias, r)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        run(func, default_pipeline(), Context())
        assert not any(op.name == "fuse" for op in func.body.walk())


def test_tiles_ask_for_few_lines_at_a_time() -> None:
    """More than a core can fetch at once would keep what follows waiting."""
    from tcc.codegen.conv.images import conv_kernel
    from tcc.codegen.target import host

    for name in ("lenet", "1x1", "whole vectors"):
        func = with_block(CASES[name], "f32", ("mul", "add", "mul"), "")
        run(func, cpu_pipeline(), Context())
        (op,) = (op for op in func.body.walk() if op.name == "conv")
        functions = conv_kernel(op, host()).text.split("\n}")
        asked = [f.count("call void @llvm.prefetch") for f in functions if ".tile0(" in f.split("{")[0]]
        assert asked and 0 < asked[0] <= 32


def test_long_rows_take_no_more_text() -> None:
    """Nor is a long row cut into tiles that nobody asks for."""
    from tcc.codegen.conv.few_filters import conv_filter_kernel
    from tcc.codegen.conv.images import conv_kernel
    from tcc.codegen.target import host

    def length(op_name: str, n: int) -> int:
        func = program(((1, 1, 1, n), (9, 1, 1, 9), (1, 1), (0, 0, 0, 0), (1, 1), 1), "f32", "")
        run(func, cpu_pipeline(), Context())
        made = {"conv": conv_kernel, "conv_input": conv_kernel, "conv_filter": conv_filter_kernel}[op_name]
        return max(len(made(op, host()).text) for op in func.body.walk() if op.name == op_name)

    for name in ("conv", "conv_input", "conv_filter"):
        assert length(name, 10**6) < 1.5 * length(name, 10**4)


def by_channels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Channels are the lanes wherever they can be; what is made so."""
    from tcc.codegen.conv import channels, channels_plan, images
    from tcc.codegen.conv.kernel import Conv

    class Slow(Conv):
        def __init__(self, *how: Any) -> None:
            super().__init__(*how)
            self.cycles = np.inf

    monkeypatch.setattr(images, "Conv", Slow)
    monkeypatch.setattr(images, "_is_possible", lambda c: False)
    monkeypatch.setattr(channels_plan, "_FEW_VECTORS", 1 << 10)
    made: list[Any] = []
    kernel = channels.ByChannels.kernel
    monkeypatch.setattr(channels.ByChannels, "kernel", lambda self: made.append(self) or kernel(self))
    return made


@pytest.mark.parametrize("way", ["pixels", "channels"])
def test_a_block_may_write_where_it_reads(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two convolutions that are added share the memory of the first one's result."""
    case = CASES["padded"]
    if way == "channels":
        case = ((2, 5, 7, 6), (4, 5, 3, 3), *case[2:])
        by_channels(monkeypatch)
        monkeypatch.setattr("tcc.codegen.conv.channels_plan.CHUNK_BYTES", 0)  # four rows, then three
    x, w, _ = arguments(case, "f32")
    how = dict(zip(FLAGS, case[2:]))
    block = Block([Type("f32", x.shape), *[Type("f32", w.shape)] * 2], ["x", "w", "v"])
    b = Builder(block)
    px, pw, pv = block.params
    both = b.add(*(b.op("conv", px, p, attrs=how).result for p in (pw, pv)))
    b.op("yield", b.sum(b.exp(both), axes=[0]))
    function, _ = compile_native(Func("f", block), {}, exact=True)
    conv = TABLE["conv"].ref
    assert conv
    want = np.exp(conv(x.astype(np.float64), (w + w[::-1]).astype(np.float64), **how)).sum(0)
    np.testing.assert_allclose(function(x, w, w[::-1])[0], want, rtol=1e-4)


def test_images_that_are_laid_out_as_one_keep_to_their_memory() -> None:
    import tcc
    import tcc.tensor as T

    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((6, 16, 32, 32), (32, 16, 1, 1)))
    x, w = T.ftensor4("x"), tcc.shared(b)
    y = T.nnet.conv2d(x, w, input_shape=a.shape, filter_shape=b.shape, subsample=(2, 2))
    got = tcc.function([x], y)(
        a
    )  # the copies are all that this function takes: a page behind them is guarded
    np.testing.assert_allclose(
        got, np.einsum("nchw,oc->nohw", a[:, :, ::2, ::2], b[:, :, 0, 0]), rtol=1e-4, atol=1e-4
    )


MANY = {
    "unpadded": ((19, 3, 6, 7), (5, 3, 3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "stride": ((33, 2, 7, 6), (11, 2, 3, 2), (2, 1), (1, 0, 2, 1), (1, 1), 1),
    "dilation": ((16, 3, 9, 9), (17, 3, 3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    "ends that meet nothing": ((9, 2, 3, 4), (5, 2, 1, 2), (1, 1), (2, 1, 5, 6), (1, 1), 1),
    "strides past filters": ((9, 3, 4, 13), (6, 3, 3, 2), (2, 4), (1, 0, 0, 1), (1, 1), 1),
    "rank 1": ((50, 4, 11), (6, 4, 5), (2,), (3, 1), (1,), 1),
    "rank 3": ((17, 2, 4, 3, 5), (3, 2, 2, 2, 3), (1, 1, 2), (0, 1, 0, 0, 1, 1), (1, 1, 1), 1),
}


@pytest.mark.parametrize("name", MANY)
def test_images_as_lanes_give_the_same_bits(name: str, target: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from tcc.codegen.conv import images

    monkeypatch.setattr(images, "TURN", 0)  # costs nothing, so it is chosen
    monkeypatch.setattr(images, "_STEP_END", 0)
    monkeypatch.setattr(images, "_FAR_END", 0)
    if name in ("stride", "rank 3"):  # filters are many
        monkeypatch.setattr(images, "_NEAR", 1 << 40)
    made = []
    kernel = images._ByImages.kernel
    monkeypatch.setattr(images._ByImages, "kernel", lambda self: made.append(self) or kernel(self))
    case = MANY[name]
    args = arguments(case, "f32")
    runs = []
    for named in ("", NAMED[-1]):
        function, _ = compile_native(program(case, "f32", named), {}, exact=not named)
        with quick_code(bool(named)):
            runs += [function(*args) for _ in numbers_of_threads()]
    assert len(made) == 2  # forward and by the image, where sizes are known
    w, y = args[1].shape, args[2].shape
    terms = [int(np.prod(w[1:])), w[0] * int(np.prod(w[2:])), y[0] * int(np.prod(y[2:]))]
    for result in zip(runs[0], meaning(case, args), meaning(case, [*map(np.abs, args)]), terms, strict=True):
        close(*result)
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    bias = np.linspace(-1, 1, w[0], dtype=np.float32)
    func = with_block(case, "f32", BLOCKS["cheap"], "")
    (got,) = compile_native(func, {}, exact=True)[0](args[0], args[1], bias, args[2])
    wide = meaning(case, args)[0] + bias.reshape(-1, *[1] * (args[0].ndim - 2))
    np.testing.assert_allclose(got, wide * args[2] + args[2], rtol=1e-4, atol=1e-5)


def of_stored_filters(case: Case, dtype: str, order: list[int], flipped: list[int]) -> Func:
    """The convolution and its gradient by the image with filters that lie in memory in the `order` of axes, some flipped."""
    image, filters, *rest = case
    how = dict(zip(FLAGS, rest))
    x, w = Type(dtype, image), Type(dtype, filters)
    (y,) = TABLE["conv"].infer([x, w], how, [])
    block = Block([x, Type(dtype, tuple(filters[a] for a in order)), y], ["x", "w", "g"])
    b = Builder(block)
    px, pw, pg = block.params
    turned = b.dimshuffle(pw, order=[order.index(a) for a in range(len(order))])
    start = [filters[a] - 1 if a in flipped else 0 for a in range(len(order))]
    step = [-1 if a in flipped else 1 for a in range(len(order))]
    seen = b.slice(turned, start=start, size=list(filters), step=step)
    forward = b.op("conv", px, seen, attrs=how).result
    b.op("yield", forward, b.op("conv_input", seen, pg, attrs={"size": x.shape[2:], **how}).result)
    return Func("f", block)


@pytest.mark.parametrize(
    "name",
    [
        "padded",
        "full",
        "more padding than filter",
        "stride 2",
        "stride 4",
        "strides past filters",
        "stride and dilation",
        "groups",
        "1x1",
        "1x1 groups",
        "many channels, borders",
        "rank 3, borders",
        "rank 1",
        "rank 3",
    ],
)
@pytest.mark.parametrize("target, dtype", KINDS, indirect=["target"])
def test_channels_as_lanes_give_the_same_bits(
    name: str, dtype: str, target: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = by_channels(monkeypatch)
    if name in ("padded", "stride 2", "groups"):  # filters that do not stay in the first-level cache
        monkeypatch.setattr("tcc.codegen.conv.channels.ByChannels._parts", lambda self, k, lanes: 3)
    case = CASES[name]
    args = arguments(case, dtype)
    runs = []
    for named in ("", "n", NAMED[-1]):
        function, _ = compile_native(program(case, dtype, named), {}, exact=not named)
        with quick_code(bool(named)):
            runs += [function(*args) for _ in numbers_of_threads()]
    assert len(made) == 4  # forward and by the image, where sizes but that of n are known
    if name == "padded" and dtype == "f32" and not made[0].target.avx512:
        assert any(m.last.v < m.whole.v for m in made)  # a vector of filters is left over
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    for got, want in zip(runs[0], meaning(case, args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    x, w, g = args
    for order, flipped in (([*range(2, w.ndim), 0, 1], [2]), ([*range(w.ndim)], sorted({2, w.ndim - 1}))):
        made.clear()
        function, _ = compile_native(of_stored_filters(case, dtype, order, flipped), {}, exact=True)
        stored = np.ascontiguousarray(np.flip(w, flipped).transpose(order))
        with quick_code():
            results = function(x, stored, g)
        for a, b in zip(results, runs[0][:2], strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(made) == 2
    bias = np.linspace(-1, 1, len(w), dtype=np.float32)
    if dtype == "f32":
        (got,) = compile_native(with_block(case, dtype, BLOCKS["cheap"], ""), {}, exact=True)[0](
            x, w, bias, g
        )
        wide = meaning(case, args)[0] + bias.reshape(-1, *[1] * (x.ndim - 2))
        np.testing.assert_allclose(got, wide * g + g, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["pixels", "channels"])
@pytest.mark.parametrize("name", ["padded", "stride 2", "groups", "strides past filters", "rank 3, borders"])
def test_images_of_many_rounds_give_the_same_bits(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Borders are written in the first; many images are each thread's own, few are shared."""
    if way == "channels":
        by_channels(monkeypatch)
    (_, *image), *rest = CASES[name]
    runs: dict[int, list[Any]] = {5: [], 17: []}
    for some in (False, True):
        if some:
            monkeypatch.setattr(
                "tcc.codegen.conv.text.ConvText.fitting",
                lambda self, n, *_: dims.maximum(dims.minimum(n, 2), 1),
            )
        for images, found in runs.items():
            case = ((images, *image), *rest)
            args = arguments(case, "f32")
            for named in ("", "n"):
                function, _ = compile_native(program(case, "f32", named), {}, exact=not named)
                found += [function(*args) for _ in numbers_of_threads()]
            for got, want in zip(found[0], meaning(case, args), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    for found in runs.values():
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["lenet", "padded", "stride 2", "groups", "strides past filters", "rank 3"])
def test_images_that_tiles_meet_a_few_lines_at_a_time_give_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tcc.codegen.conv import filter

    case = CASES[name]
    args = arguments(case, "f32")
    runs = []
    for some in (None, 1 << 11):
        if some:
            monkeypatch.setattr(filter, "round_bytes", lambda target: some)
        for named in ("", NAMED[-1]):
            function, _ = compile_native(program(case, "f32", named), {}, exact=not named)
            runs += [function(*args)[2] for _ in numbers_of_threads()]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0], other)
