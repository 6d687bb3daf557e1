"""Matrix products against NumPy in float64, and against themselves: bits depend on sizes and layout alone."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tcc.codegen import support
from tcc.codegen.emit import Emit, VecType, merge
from tcc.codegen.index import Index
from tcc.codegen.jit import Image, assembly, compile_object, function
from tcc.codegen.products.engines import vector
from tcc.codegen.products.gemm import engine, written
from tcc.codegen.products.matmul import (
    Epilogue,
    Matmul,
    chosen_plan,
    matmul_kernel,
    matmul_scratch,
    matmul_slots,
)
from tcc.codegen.products.microkernel import VECTORS, micro_kernel, tile_rows
from tcc.codegen.products.plan import choose_form, plan
from tcc.codegen.products.quick import quick_engine
from tcc.codegen.products.record import (
    A_BLOCK,
    A_COLUMNS,
    A_ROWS,
    A_UNPACKED,
    FETCHED,
    FETCHED_ALONG,
    FETCHED_FIRST,
    FETCHES_B,
    NOT_FETCHED,
    PACK_FIRST,
    PACK_ROWS,
    ROWS_SHARED,
    UNPACKED,
    engine_name,
    unit_rows,
)
from tcc.codegen.target import KNOWN, Target, host, plain
from tcc.codegen.vectors import load
from tcc.ir.ops.linalg import panels_ref
from tcc.runtime import layout as at
from tcc.runtime import native
from tcc.runtime.threads import Pool

Array = np.ndarray[Any, np.dtype[Any]]
ANY = Matmul("f32", None, None, None, (None, None), (None, None), None)
DTYPES = ("f32", "f64")
LAYOUTS = ("NN", "NT", "TN", "TT")
SIZES = (0, 1, 2, 3, 7, 13, 16, 17, 31, 64, 65, 97)
SHAPES = [
    *((m, n, k) for m, n, k in itertools.product((0, 1, 3, 14, 33), (0, 1, 5, 16, 65), (0, 1, 31, 97))),
    *((s, s, s) for s in SIZES),
    *[(1, 1, 200), (1, 1500, 70), (70, 1, 300), (8, 130, 65), (130, 8, 64), (5, 7, 3000), (300, 20, 1100)],
    *[
        (250, 300, 700),
        (20, 600, 600),
        (29, 31, 2100),
        (128, 128, 128),
        (114, 256, 256),
        (241, 600, 620),
        (64, 700, 520),
    ],
]

# The ranges run one after another, the last first: a range that writes into its neighbour is overwritten or overwrites.
STAND_IN = f"""
define void @tcc_parallel(ptr %ctx, ptr %body, ptr %args, i64 %units, i64 %grain) #0 {{
entry:
  %threads.at = getelementptr i64, ptr %ctx, i64 {at.CTX_THREADS}
  %threads = load i64, ptr %threads.at
  %none = icmp slt i64 %units, 1
  br i1 %none, label %out, label %head
head:
  %t = phi i64 [%threads, %entry], [%t1, %head]
  %t1 = sub i64 %t, 1
  %before = mul i64 %units, %t1
  %through = mul i64 %units, %t
  %begin = udiv i64 %before, %threads
  %end = udiv i64 %through, %threads
  call void %body(ptr %ctx, ptr %args, i64 %begin, i64 %end, i64 %t1)
  %more = icmp ugt i64 %t1, 0
  br i1 %more, label %head, label %out
out:
  ret void
}}
"""


def module(texts: Sequence[str]) -> str:
    lines = [line for text in texts for line in text.splitlines()]
    declares = dict.fromkeys(line for line in lines if line.startswith("declare ") and "@tcc_" not in line)
    return "\n".join([*declares, *(line for line in lines if not line.startswith("declare "))]) + "\n"


@functools.cache
def shared(dtype: str, target: Target, pool: bool = False, quick: bool = False) -> tuple[Image, str]:
    """The engine in memory, on the stand-in or on the real thread pool, with the name of its entry."""
    t = target.vector({"f32": "float", "f64": "double"}[dtype])
    functions = engine(t, target).values()
    if quick:
        hot, rest = quick_engine(t, target)
        code = [compile_object(module([*hot.values()]), target)]
        code.append(compile_object(merge([STAND_IN, *rest.values()]), target, level=0))
        return Image.load(code), engine_name(t)
    if not pool:
        return Image.load([compile_object(module([STAND_IN, *functions]), target)]), engine_name(t)
    support.load()
    text = "declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)\n" + module([*functions])
    known = {"tcc_parallel": native.provided("tcc_parallel")}
    return Image.load([compile_object(text, target)], known), engine_name(t)


@dataclass
class Product:
    spec: Matmul
    target: Target
    code: Any
    image: Image
    pool: Pool | None

    def __call__(self, a: Array, b: Array, c: Array, threads: int = 1, extras: Sequence[Array] = ()) -> Array:
        """C after the product, in a copy of `c` that keeps its strides."""
        out = like(c)
        self.run(a, b, out, threads, extras)
        return out

    def run(self, a: Array, b: Array, c: Array, threads: int = 1, extras: Sequence[Array] = ()) -> Array:
        """Computes into `c`; the scratch of each thread, which starts as NaN."""
        size = c.itemsize
        strides = [s // size for s in (*a.strides[-2:], *b.strides[-2:], c.strides[-2])]
        batch = [x.strides[0] // size if x.ndim == 3 else 0 for x in (a, b, c)]
        count = c.shape[0] if c.ndim == 3 else 1
        values = dict(
            zip(
                ("m", "n", "k", "ars", "acs", "brs", "bcs", "crs", "batch", "batch_a", "batch_b", "batch_c"),
                (*c.shape[-2:], a.shape[-1], *strides, count, *batch),
                strict=True,
            )
        )
        values |= {"a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data, "backwards": 1}
        values |= {f"x{i}": x.ctypes.data for i, x in enumerate(extras)}
        slots = matmul_slots(self.spec)
        args = (ctypes.c_int64 * len(slots))(*(values[s] for s in slots))
        each = -(-matmul_scratch(self.spec, self.target) // 64) * 64
        scratch = np.full(threads * each // 4 + 64, np.nan, np.float32)
        ctx = (ctypes.c_int64 * at.CTX_SLOTS)()
        ctx[at.CTX_POOL] = self.pool.address if self.pool else 0
        ctx[at.CTX_THREADS] = threads
        ctx[at.CTX_SCRATCH] = -(-scratch.ctypes.data // 64) * 64
        ctx[at.CTX_SCRATCH_BYTES] = each
        assert self.code(ctx, args) == 0
        assert np.isnan(scratch[-48:]).all(), "written behind the scratch that was asked for"
        first = (ctx[at.CTX_SCRATCH] - scratch.ctypes.data) // 4
        return scratch[first : first + threads * each // 4].reshape(threads, -1)


def like(c: Array) -> Array:
    """A copy with the same strides and the same bytes in its gaps."""
    base = c
    while isinstance(base.base, np.ndarray):
        base = base.base
    whole = base.copy()
    offset = c.ctypes.data - base.ctypes.data
    return np.ndarray(c.shape, c.dtype, whole, offset, c.strides)


def products(
    specs: Sequence[Matmul], target: Target | None = None, pool: Pool | None = None, quick: bool = False
) -> list[Product]:
    """Kernels of one dtype, compiled together."""
    target = target or host()
    image, entry = shared(specs[0].dtype, target, pool is not None, quick)
    texts = [f"declare void @{entry}(ptr, ptr)\n"]
    for i, spec in enumerate(specs):
        kernel = matmul_kernel(f"k{i}", spec, target)
        texts.append("\n".join([*kernel.declares, kernel.text]))
    text = f"declare void @{entry}(ptr, ptr)\n" + module(texts)
    own = Image.load([compile_object(text, target)], {entry: image.address(entry)})
    codes = [
        function(own.address(f"k{i}"), ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        for i in range(len(specs))
    ]
    return [Product(spec, target, code, own, pool) for spec, code in zip(specs, codes, strict=True)]


@functools.cache
def product(spec: Matmul, target: Target | None = None) -> Product:
    return products([spec], target)[0]


def exact(dtype: str, a: Array, b: Array, c: Array, **more: Any) -> Matmul:
    """The spec with every size and stride of these operands known."""
    rows, cols = ([s // x.itemsize for s in x.strides[-2:]] for x in (a, b))
    size = c.itemsize
    batch = tuple(x.strides[0] // size if x.ndim == 3 else 0 for x in (a, b, c))
    count = c.shape[0] if c.ndim == 3 else 1
    m, n, k = *c.shape[-2:], a.shape[-1]
    return Matmul(
        dtype,
        m,
        n,
        k,
        (rows[0], rows[1]),
        (cols[0], cols[1]),
        c.strides[-2] // size,
        count,
        (batch[0], batch[1], batch[2]),
        **more,
    )


def numbers(rows: int, cols: int, dtype: str, turned: bool = False, pad: int = 0, seed: int = 0) -> Array:
    """A random matrix, stored by columns when `turned`, with NaN in the `pad` elements behind each line of memory."""
    np_dtype = np.dtype({"f32": "float32", "f64": "float64"}[dtype])
    lines, length = (cols, rows) if turned else (rows, cols)
    memory = np.full((lines + 1, length + pad), np.nan, np_dtype)
    memory[:lines, :length] = np.random.default_rng(seed).standard_normal((lines, length))
    view = memory[:lines, :length]
    return view.T if turned else view


def operands(
    shape: tuple[int, int, int], layout: str, dtype: str, pad: int = 0
) -> tuple[Array, Array, Array]:
    m, n, k = shape
    a = numbers(m, k, dtype, layout[0] == "T", pad, 1)
    b = numbers(k, n, dtype, layout[1] == "T", pad, 2)
    return a, b, numbers(m, n, dtype, False, pad, 3)


def close(got: Array, a: Array, b: Array, c: Array | None = None) -> None:
    """Within the forward error bound of a sum of k products: (k + 2) eps sum |a| |b|."""
    wide = [np.asarray(x, np.float64) for x in (a, b)]
    want = wide[0] @ wide[1] + (0 if c is None else np.asarray(c, np.float64))
    size = np.abs(wide[0]) @ np.abs(wide[1]) + (0 if c is None else np.abs(c))
    bound = (a.shape[-1] + 2) * np.finfo(got.dtype).eps * size
    assert got.shape == want.shape
    assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_run_time_sizes(dtype: str, layout: str) -> None:
    f = product(replace(ANY, dtype=dtype))
    for shape in SHAPES:
        a, b, c = operands(shape, layout, dtype)
        once = f(a, b, c)
        close(once, a, b)
        assert np.array_equal(f(a, b, c, threads=3), once), shape


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_known_sizes_give_the_bits_of_run_time_ones(dtype: str, layout: str) -> None:
    sets = [operands(shape, layout, dtype) for shape in SHAPES]
    anything = product(replace(ANY, dtype=dtype))
    known = products([exact(dtype, *s) for s in sets])
    for f, s in zip(known, sets, strict=True):
        want = anything(*s)
        assert np.array_equal(f(*s), want)
        assert np.array_equal(f(*s, threads=2), want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accumulate_starts_from_the_old_values(layout: str) -> None:
    f = product(replace(ANY, accumulate=True))
    sets = [operands(shape, layout, "f32") for shape in SHAPES]
    known = products([exact("f32", *s, accumulate=True) for s in sets])
    for g, (a, b, c) in zip(known, sets, strict=True):
        got = f(a, b, c)
        close(got, a, b, c)
        assert np.array_equal(f(a, b, c, threads=2), got)
        assert np.array_equal(g(a, b, c), got)


def test_without_terms_the_result_is_zero_or_what_it_was() -> None:
    a, b, c = operands((5, 6, 0), "NN", "f32")
    assert (product(ANY)(a, b, c) == 0).all()
    assert np.array_equal(product(replace(ANY, accumulate=True))(a, b, c), c)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded_lines_are_neither_read_nor_written(layout: str) -> None:
    for shape in [(7, 9, 11), (33, 50, 40), (1, 70, 90), (90, 1, 90), (70, 3, 64), (300, 300, 520)]:
        a, b, c = operands(shape, layout, "f32", pad=3)
        out = product(ANY)(a, b, c)
        close(out, a, b)
        assert np.isnan(np.ndarray((shape[0], 3), c.dtype, out.base, shape[1] * 4, c.strides)).all()


def test_operands_with_no_contiguous_side() -> None:
    for m, n, k in [
        (5, 9, 7),
        (40, 50, 130),
        (3, 70, 80),
        (70, 3, 80),
        (1, 20, 65),
        (20, 1, 65),
        (240, 300, 500),
    ]:
        a = numbers(2 * m, 3 * k, "f32", seed=1)[::2, ::3]
        b = numbers(3 * k, 2 * n, "f32", seed=2)[::3, ::2]
        c = numbers(m, n, "f32")
        got = product(ANY)(a, b, c)
        close(got, a, b)
        assert np.array_equal(products([exact("f32", a, b, c)])[0](a, b, c, threads=2), got)


def test_bits_do_not_depend_on_the_tile() -> None:
    a, b, c = operands((260, 290, 1100), "NN", "f32")
    whole = product(ANY)(a, b, c)
    for i, j in [(0, 0), (13, 31), (100, 7), (251, 281)]:
        rows, cols = slice(i, i + 9), slice(j, j + 9)
        assert np.array_equal(product(ANY)(a[rows], b[:, cols], c[rows, cols]), whole[rows, cols])


@pytest.mark.parametrize("count", [1, 3, 40])
def test_batch(count: int) -> None:
    spec = replace(ANY, batch=None, batch_strides=(None, None, None))
    for m, n, k in [(5, 7, 9), (1, 40, 70), (33, 2, 80), (60, 70, 80)]:
        a, b, c = (numbers(count * x, y, "f32", seed=i) for i, (x, y) in enumerate([(m, k), (k, n), (m, n)]))
        a3, b3, c3 = a.reshape(count, m, k), b.reshape(count, k, n), c.reshape(count, m, n)
        got = product(spec)(a3, b3, c3)
        close(got, a3, b3)
        assert np.array_equal(product(spec)(a3, b3, c3, threads=3), got)
        assert np.array_equal(products([exact("f32", a3, b3, c3)])[0](a3, b3, c3, threads=2), got)
        one = np.broadcast_to(b3[0], b3.shape)
        close(product(spec)(a3, one, c3, threads=2), a3, one)


def test_threads_do_not_disturb_each_other() -> None:
    """On the real pool: copies of A and of B, a split by columns, and one product of a batch for each thread."""
    (f,) = products([replace(ANY, batch=None, batch_strides=(None, None, None))], pool=Pool(2))
    alone = product(f.spec)
    for count, m, n, k in [(1, 300, 400, 1024), (1, 20, 700, 512), (9, 60, 70, 256)]:
        for turned in (False, True):
            a, b, c = (
                numbers(count * m, k, "f32", seed=1).reshape(count, m, k),
                numbers(count * n, k, "f32", seed=2).reshape(count, n, k).transpose(0, 2, 1),
                numbers(count * m, n, "f32", seed=3).reshape(count, m, n),
            )
            if turned:
                a = np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1)
            want = alone(a, b, c)
            for _ in range(10):
                assert np.array_equal(f(a, b, c, threads=2), want)


def test_low_tiles_share_blocks_where_each_thread_has_rows_enough() -> None:
    """Else each thread has columns of its own and makes their panels in its scratch."""
    target, threads = plain(256), 2
    enough = threads * ROWS_SHARED * unit_rows(target) + 1
    for m in (enough - 1, enough):
        a, b, c = operands((m, 300, 2600), "NN", "f32")
        f, out = product(exact("f32", a, b, c), target), np.empty_like(c)
        scratch = f.run(a, b, out, threads)
        close(out, a, b)
        assert np.isnan(scratch[1]).all() == (m == enough), m


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_of_rows_serves_all_blocks_of_columns(dtype: str, layout: str) -> None:
    """With small caches, so that there are several blocks of rows, of k and of columns."""
    small = host()._replace(l2_bytes=32 << 10)
    anything = product(replace(ANY, dtype=dtype, accumulate=True), small)
    for shape in [(250, 300, 1024), (479, 261, 1024), (263, 700, 1024), (61, 300, 2048)]:
        a, b, c = operands(shape, layout, dtype)
        spec = exact(dtype, a, b, c, accumulate=True)
        assert _plan(spec, small)["pack_a"] == A_BLOCK
        want = product(spec)(a, b, c)
        close(want, a, b, c)
        for f in (anything, product(spec, small)):
            assert np.array_equal(f(a, b, c), want)
            assert np.array_equal(f(a, b, c, threads=3), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_who_copies_b_does_not_change_bits(dtype: str) -> None:
    """The first tiles, where one thread reads the copy and B is near, or has been fetched; else a pass before them."""
    whole, tiny = host(), host()._replace(l2_bytes=16 << 10)
    fetched = set()
    for shape in [(64, 700, 520), (250, 690, 530), (40, 130, 133), (30, 1024, 140)]:
        a, b, c = operands(shape, "NN", dtype)
        ways = set()
        results = []
        for target in (whole, tiny):
            spec = exact(dtype, a, b, c)
            chosen = _plan(spec, target)
            ways.add(chosen["pack_b"])
            fetched.add(chosen["fetch_b"])
            f = product(spec, target)
            results += [f(a, b, c), f(a, b, c, threads=3)]
        if whole.avx512 and shape[0] >= 64:
            assert ways == {PACK_FIRST, PACK_ROWS}
        close(results[0], a, b)
        assert all(np.array_equal(r, results[0]) for r in results)
    assert fetched == ({NOT_FETCHED} if whole.avx512 else {*FETCHES_B})


def _plan(spec: Matmul, target: Target) -> dict[str, Any]:
    t, x = vector(spec.dtype, target), Index(Emit())
    sizes: dict[str, Any] = dict(m=spec.m, n=spec.n, k=spec.k, crs=spec.c, batch=1, batch_a=0, batch_b=0)
    sizes |= dict(ars=spec.a[0], acs=spec.a[1], brs=spec.b[0], bcs=spec.b[1])
    form, sizes = choose_form(t, x, sizes, False)
    return plan(t, target, x, sizes, form)


def _bias_relu_residual(
    e: Emit,
    target: Target,
    acc: str,
    t: VecType,
    row: str,
    col: str,
    mask: str | None,
    batch: str,
    slots: dict[str, str],
) -> str:
    """max(acc + x0[col], 0) + x1[batch, row]"""
    bias = load(e, t, e.gep(slots["x0"], col, t.elem), mask)
    total = e.call(
        t,
        f"llvm.maxnum.{t.suffix}",
        (t, e.value(f"fadd {t} {acc}, {bias}")),
        (t, "zeroinitializer"),
    )
    line = e.value(f"add i64 {e.value(f'mul i64 {batch}, 1000')}, {row}")
    value = e.value(f"load {t.elem}, ptr {e.gep(slots['x1'], line, t.elem)}")
    one = e.value(f"insertelement {t} poison, {t.elem} {value}, i64 0")
    splat = e.value(f"shufflevector {t} {one}, {t} poison, {t.of('i32')} zeroinitializer")
    return e.value(f"fadd {t} {total}, {splat}")


FUSED = Epilogue("bias, relu, residual", (("x0", "ptr"), ("x1", "ptr")), _bias_relu_residual)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogue_sees_every_finished_element_once(layout: str, accumulate: bool) -> None:
    plain_spec = replace(ANY, accumulate=accumulate)
    for shape in [
        (7, 9, 11),
        (60, 50, 1100),
        (1, 1500, 90),
        (90, 1, 90),
        (70, 3, 64),
        (3, 70, 64),
        (4, 5, 0),
        (40, 530, 70),
    ]:
        a, b, c = operands(shape, layout, "f32")
        bias, residual = numbers(1, shape[1], "f32", seed=4), numbers(1, shape[0], "f32", seed=5)
        want = np.maximum(product(plain_spec)(a, b, c) + bias[0], 0) + residual.T
        fused = product(replace(plain_spec, epilogue=FUSED))
        got = fused(a, b, c, threads=2, extras=(bias, residual))
        assert np.allclose(got, want, rtol=1e-4, atol=1e-4)
        assert np.array_equal(fused(a, b, c, extras=(bias, residual)), got)


def test_epilogue_knows_its_place_in_the_batch() -> None:
    spec = replace(ANY, batch=None, batch_strides=(None, None, None), epilogue=FUSED)
    a, b, c = (numbers(30, 5, "f32", seed=i).reshape(6, 5, 5) for i in range(3))
    bias, residual = numbers(1, 5, "f32"), numbers(6, 1000, "f32")
    want = np.maximum(a @ b + bias[0], 0) + residual[:, :5, None]
    assert np.allclose(product(spec)(a, b, c, threads=2, extras=(bias, residual)), want, atol=1e-5)


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_vectors(layout: str, bits: int) -> None:
    f = product(ANY, plain(bits))
    for shape in [
        (0, 3, 2),
        (3, 5, 0),
        (1, 1, 1),
        (7, 9, 31),
        (1, 70, 90),
        (90, 1, 90),
        (33, 65, 97),
        (70, 2, 300),
    ]:
        a, b, c = operands(shape, layout, "f32", pad=1)
        once = f(a, b, c)
        close(once, a, b)
        assert np.array_equal(f(a, b, c, threads=3), once)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_behind_the_operands_is_not_touched(layout: str) -> None:
    """Each operand ends where a page begins that may not be read."""
    for shape in [(13, 17, 31), (1, 33, 70), (33, 1, 70), (3, 40, 65), (60, 31, 45)]:
        a, b, c = (_before_a_wall(x) for x in operands(shape, layout, "f32"))
        product(ANY).run(a, b, c)
        close(c, a, b)


def _before_a_wall(x: Array) -> Array:
    page = mmap.PAGESIZE
    order = "C" if x.strides[-1] == x.itemsize else "F"
    room = -(-x.nbytes // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + room), page, 0) == 0
    out: Array = np.ndarray(x.shape, x.dtype, memory, room - x.nbytes, order=order)
    out[...] = x
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", (None, 256))
def test_the_quick_engine_gives_the_same_bits(dtype: str, bits: int | None) -> None:
    target = plain(bits) if bits else host()
    rng = np.random.default_rng(3)
    shapes = (
        (13, 33, 40),
        (31, 70, 129),
        (200, 20, 64),
        (1, 70, 30),
        (40, 1, 300),
        (9, 5, 300),
        (27, 64, 900),
    )
    cases = []
    for m, n, k in shapes:
        for by_rows_a, by_rows_b in ((True, True), (True, False), (False, True), (False, False)):
            a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
            a, b = a.astype(f"float{dtype[1:]}"), b.astype(f"float{dtype[1:]}")
            a = a if by_rows_a else np.asfortranarray(a)
            b = b if by_rows_b else np.asfortranarray(b)
            cases.append((a, b, np.zeros((m, n), a.dtype)))
    specs = [exact(dtype, *case) for case in cases]
    for whole, quick, case in zip(products(specs, target), products(specs, target, quick=True), cases):
        assert np.array_equal(whole(*case), quick(*case))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_taken_from_the_last_one_on_give_the_same_bits(dtype: str) -> None:
    """Sums along k whose vector is a column or a row, and a row by panels of columns; whole and ragged ends."""
    t, pairs = vector(dtype, host()), []
    for long in (1, 8, 37, 300):
        for m, n in ((long, 1), (1, long)):
            a, b, c = operands((m, n, 4 * t.lanes + 3), "NT", dtype, 5)
            pairs.append((exact(dtype, a, b, c), (a, b, c)))
        k, width = 70, VECTORS * t.lanes
        b = numbers(k, long, dtype)
        inside = Matmul(dtype, 1, long, k, (k, 1), (width, k), long, panels=True)
        pairs.append((inside, (numbers(1, k, dtype), panels_ref(b, width), numbers(1, long, dtype))))
    specs = [spec for spec, _ in pairs]
    for one, other, (_, case) in zip(
        products(specs), products([replace(s, backwards=True) for s in specs]), pairs, strict=True
    ):
        assert np.array_equal(one(*case), other(*case), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_keep_all_sums_in_registers(dtype: str) -> None:
    """The loops over k of x86's tiles touch the stack for no vector."""
    for target in KNOWN[:2]:
        t = vector(dtype, target)
        tile = micro_kernel(t, tile_rows(target)[0], VECTORS, target)
        lines = assembly(merge([written(tile).replace("internal ", "")]), target).splitlines()
        moves = [line for line in lines if "(%rsp)" in line and "mm" in line.split("#")[0]]
        assert not moves, moves


def test_one_depth_of_blocks_for_the_caches_of_each_machine() -> None:
    """As a panel of A has room in the first-level cache, and no less than 256 of k; deeper where it need not stay there."""
    (v3, v4), n = KNOWN[:2], 1024
    amd = v4._replace(cpu="znver4")
    for target, deep in ((v3, 512), (v4, 512), (amd, 256), (amd._replace(l1_bytes=48 << 10), 512)):
        a, b, c = (np.empty((n, n), np.float32) for _ in range(3))
        assert _plan(exact("f32", a, b, c), target)["kc_most"] == deep


def test_columns_of_a_are_copied_where_enough_tiles_read_the_copy() -> None:
    """Not for few rows, nor few columns; what is read in place has half the depth where its rows are many."""
    intel, amd = KNOWN[1], KNOWN[1]._replace(cpu="znver4")
    cases = (
        (intel, (128, 128, 128), (A_COLUMNS, 128)),
        (intel, (28, 128, 128), (A_UNPACKED, 128)),
        (intel, (128, 128, 40), (A_UNPACKED, 128)),
        (intel, (600, 128, 40), (A_UNPACKED, 64)),
        (amd, (128, 128, 128), (A_UNPACKED, 128)),
    )
    for target, (m, k, n), want in cases:
        a, b, c = np.empty((k, m), np.float32).T, np.empty((k, n), np.float32), np.empty((m, n), np.float32)
        chosen = _plan(exact("f32", a, b, c), target)
        assert (chosen["pack_a"], chosen["kc_most"]) == want, (target.cpu, m, k, n)


def test_rows_of_a_that_share_cache_sets_are_copied() -> None:
    """4096 bytes apart, or 2048 where more columns use the copy; for several blocks of columns once."""
    for stride, n, want in (
        (1024, 65, A_ROWS),
        (1024, 512, A_BLOCK),
        (512, 100, A_UNPACKED),
        (512, 200, A_ROWS),
        (520, 512, A_UNPACKED),
    ):
        a, b, c = (
            np.empty((200, stride), np.float32)[:, :512],
            np.empty((512, n), np.float32),
            np.empty((200, n), np.float32),
        )
        assert _plan(exact("f32", a, b, c), KNOWN[1])["pack_a"] == want, (stride, n)


def test_few_rows_copy_b_from_memory_but_not_from_the_third_level_cache() -> None:
    """From there only the tiles that come first do, if there are others."""
    for m, k, n, want in (
        (20, 650, 2600, PACK_FIRST),
        (10, 650, 2600, UNPACKED),
        (20, 1300, 2600, PACK_ROWS),
    ):
        a, b, c = np.empty((m, k), np.float32), np.empty((k, n), np.float32), np.empty((m, n), np.float32)
        assert _plan(exact("f32", a, b, c), KNOWN[1])["pack_b"] == want, (m, k, n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 24, 33, 250])
def test_low_tiles_read_b_in_place_up_to_its_last_element(n: int, dtype: str) -> None:
    """One row of tiles copies no B, few rows as they come to it: what lies behind the last whole tile is in a copy of its own."""
    for m in (1, 3, 6, 13, 40):
        for k in (1, 5, 70, 600):
            a, b, c = operands((m, k, n), "NN", dtype)
            for target in dict.fromkeys((host(), plain(256))):
                spec = exact(dtype, a, b, c)
                f = product(spec, target)
                got = f(a, b, c)
                close(got, a, b)
                assert np.array_equal(f(a, b, c, threads=3), got)


def test_low_tiles_copy_b_by_its_size_and_the_rows_that_read_it() -> None:
    """Nobody, the first tiles, or all before them; with a fast third-level cache its block is as wide as that one lets it."""
    zen = KNOWN[0]._replace(cpu="znver3")
    for m, k, n, want in (
        (6, 650, 2600, (UNPACKED, A_UNPACKED, 128)),
        (20, 500, 500, (PACK_FIRST, A_UNPACKED, 128)),
        (20, 650, 2600, (PACK_ROWS, A_UNPACKED, 128)),
        (20, 650, 5200, (PACK_ROWS, A_UNPACKED, 192)),
        (256, 256, 256, (PACK_FIRST, A_UNPACKED, 256)),
        (512, 512, 512, (PACK_ROWS, A_UNPACKED, 512)),
        (1024, 1024, 1024, (PACK_ROWS, A_ROWS, 1024)),
    ):
        a, b, c = np.empty((m, k), np.float32), np.empty((k, n), np.float32), np.empty((m, n), np.float32)
        chosen = _plan(exact("f32", a, b, c), zen)
        assert (chosen["pack_b"], chosen["pack_a"], chosen["nc_most"]) == want, (m, k, n)


def test_low_tiles_of_few_rows_fetch_the_next_block_of_a_large_b() -> None:
    """They make its panels too where the copy is much to them and the third-level cache has it; rows that share sets are fetched
    along their length, from memory."""
    zen, t = KNOWN[0]._replace(cpu="znver3"), VecType("float", 8)
    for m, k, n, want in (
        (6, 650, 2600, NOT_FETCHED),
        (12, 650, 2600, FETCHED),
        (20, 650, 2600, FETCHED_FIRST),
        (20, 512, 2048, NOT_FETCHED),
        (20, 500, 500, NOT_FETCHED),
        (20, 1024, 4112, FETCHED),
        (64, 1024, 4096, FETCHED_ALONG),
        (96, 650, 2600, FETCHED),
        (97, 650, 2600, NOT_FETCHED),
    ):
        a, b, c = np.empty((m, k), np.float32), np.empty((k, n), np.float32), np.empty((m, n), np.float32)
        spec = exact("f32", a, b, c)
        assert _plan(spec, zen)["fetch_b"] == want, (m, k, n)
        assert _plan(spec, KNOWN[1])["fetch_b"] == NOT_FETCHED
        panels = replace(spec, b=(2 * t.lanes, k), panels=True)
        large, few = n * k > zen.l2_bytes, 6 < m < 97
        assert (chosen_plan(panels, zen)["fetch_b"] == FETCHED) == (large and few), (m, k, n)
