"""Kernels that are written in Python (`tcc.kernel`)."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import standin
from emulated import assembled

import tcc
import tcc.tensor as T
from tcc import gpu
from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.emulator import KernelError
from tcc.codegen.gpu.kernel import ptx
from tcc.ir.types import Type

RATE = 3
rng = np.random.default_rng(0)


@tcc.kernel("float32[n], float32 -> float32[n]")
def smooth(x, k, y):
    """The mean of three neighbours."""
    i = gpu.index()
    if i < x.size:
        left = x[max(i - 1, 0)]
        right = x[i + 1] if i + 1 < len(x) else x[-1]
        y[i] = k * (left + x[i] + right) / RATE


@tcc.kernel("T[n] -> T[(n + 255) // 256]", grid="(n + 255) // 256", block=256)
def totals(x, y):
    part, zero = gpu.shared(8, x.dtype), x.dtype.type(0)
    i, t = gpu.index(), gpu.thread()
    v = x[i] if i < len(x) else zero
    for bit in range(5):
        v += gpu.shuffle_xor(v, 1 << bit)
    if t % 32 == 0:
        part[t // 32] = v
    gpu.barrier()
    if t == 0:
        total = zero
        for w in range(7, -1, -1):
            total += part[w]
        y[gpu.block()] = total


def half(v):
    if v > 0:
        return v / 2
    return -v


@tcc.kernel("int64[n], T[m] -> T[m], int32[m]", fill=0)
def counts(x, w, found, many):
    i = gpu.index()
    while True:
        if i >= len(x):
            break
        gpu.atomic_add(many, x[i], 1)
        if x[i] < 10 and not (w[x[i]] < 0.5):
            found[x[i]] = half(math.exp(w[x[i]]))
        i += gpu.blocks() * gpu.threads()


@tcc.kernel("T[n, m] -> T[m, n]", grid="(m + 7) // 8, (n + 15) // 16", block=(8, 16))
def turned(x, y):
    tile = gpu.shared((16, 9), x.dtype)
    i, j = gpu.index(1), gpu.index(0)
    if i < x.shape[0] and j < x.shape[1]:
        tile[gpu.thread(1), gpu.thread(0)] = x[i, j]
    gpu.barrier()
    t = gpu.thread(1) * gpu.threads() + gpu.thread()
    a, b = t // 16, t % 16
    row, column = gpu.block(0) * 8 + a, gpu.block(1) * 16 + b
    if row < y.shape[0]:
        if column >= y.shape[1]:
            return
        y[row, column] = tile[b, a]


@pytest.mark.parametrize("device", ["cpu", "emulator"])
@pytest.mark.parametrize("n", [0, 1, 257])
def test_elements_and_blocks(n: int, device: str) -> None:
    x = T.fvector("x")
    f = tcc.function([x], [smooth(x, 2.0), totals(x), totals(T.cast(x, "float64"))], device=device)
    given = rng.normal(size=n).astype(np.float32)
    mean, single, double = f(given)
    around = np.pad(given, 1, mode="edge") if n else np.zeros(2, np.float32)
    np.testing.assert_array_equal(
        mean, np.float32(2) * (around[:-2] + around[1:-1] + around[2:]) / np.float32(3)
    )
    want = [given[i : i + 256].astype(float).sum() for i in range(0, n, 256)]
    np.testing.assert_allclose(double, want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(single, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_round_at_each_step(dtype: str) -> None:
    x = T.vector("x", dtype=dtype)
    given = np.float32(rng.integers(-100, 100, 33))
    for device in ("cpu", "emulator"):
        f = tcc.function([x], totals(x), device=device)
        made = f(given.astype(np.float16 if dtype == "float16" else np.float32))
        np.testing.assert_allclose(np.float32(made), [given.sum()], rtol=2e-2, atol=4)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (17, 9), (31, 50)])
def test_blocks_of_two_axes(shape: tuple[int, int]) -> None:
    x = T.matrix("x", dtype="int16")
    given = rng.integers(-99, 99, shape).astype(np.int16)
    np.testing.assert_array_equal(tcc.function([x], turned(x), device="emulator")(given), given.T)


def test_branches_functions_and_atomics() -> None:
    i, w = T.lvector("i"), T.dvector("w")
    f = tcc.function([i, w], counts(i, w), device="emulator")
    index, weights = rng.integers(0, 10, 500), rng.uniform(size=10)
    found, many = f(index, weights)
    np.testing.assert_array_equal(many, np.bincount(index, minlength=10))
    np.testing.assert_allclose(found, np.where(weights >= 0.5, np.exp(weights) / 2, 0))


def test_an_index_that_is_not_within_names_the_line() -> None:
    i, w = T.lvector("i"), T.dvector("w")
    f = tcc.function([i, w], counts(i, w), device="emulator")
    line = counts.function.__code__.co_firstlineno + 6
    wrong = rf"test_kernels.py:{line}: index 7 of axis 0 of many is outside of 0..6"
    with pytest.raises(KernelError, match=wrong):
        f([3, 7], np.ones(7))


def test_sizes_of_one_name_must_be_equal() -> None:
    @tcc.kernel("float32[n], float32[n], float32[3] -> float32[n]")
    def both(x, y, z, out):
        out[gpu.index()] = x[0] + y[0] + z[0]

    x, y, z = T.fvectors("x", "y", "z")
    ones = np.ones(4, np.float32)
    for device in ("cpu", "emulator"):
        f = tcc.function([x, y, z], both(x, y, z), device=device)
        for wrong in ((ones, ones[1:], ones[1:]), (ones, ones, ones)):
            with pytest.raises((ValueError, TypeError)):
                f(*wrong)


def test_a_gradient_of_its_own() -> None:
    @tcc.kernel("T[n] -> T[n]")
    def cube(x, y):
        i = gpu.index()
        if i < len(x):
            y[i] = x[i] ** 3

    @cube.gradient
    def rule(inputs: Any, grads: Any) -> Any:
        return [3 * inputs[0] ** 2 * grads[0]]

    x = T.dvector("x")
    f = tcc.function([x], tcc.grad(cube(x).sum(), x), device="emulator")
    np.testing.assert_allclose(f([1.0, 2.0]), [3.0, 12.0])


REFUSED = {
    "x[i] = x[0]": "x is an input: what is written stands behind the ->",
    "y[i] = x[i] + i": "add of float32 and int64: cast one, as in np.int64(...)",
    "y[i] = x[i, i]": "x has 1 axes, and 2 indices are given",
    "y[i] = x": "y is float32, got the array x",
    "y[i] = i / 2": "div has no meaning for int64: // divides integers, or cast them",
    "y[i] = unknown": "unknown is not known here",
    "y[i] = sorted(x)": "sorted cannot be called in a kernel",
    "i = 1.5": "i is int64, which 1.5 is not",
    "y[i] = [1][0]": "a kernel cannot hold this expression (list)",
    "import os": "a kernel cannot hold this statement (import)",
    "return 3": "a kernel returns nothing: it writes into its results",
    "y[i] = gpu.shared(i, np.float32)[0]": "shared memory has known sizes",
    "y[i] = gpu.thread(3)": "an axis of threads is 0, 1 or 2",
    "y[i] = gpu.thread(0, 1)": "thread takes 1 arguments, got 2",
    "gpu.atomic_add(x, i, 1)": "atomic_add adds to an element of a result or of shared memory",
    "y[i] = again(1)": "again calls itself",
    "y[i] = np.float32(1, 2)": "a cast takes one number, got 2",
    "y[i] = x.strides": "the array x has no strides in a kernel",
    "y[i] = TABLE[0]": "elements of what is outside cannot be read: give it to the kernel as an input",
    "y[i] = x[0] * 10**400": "mul is float32, which has no number as large",
}


def test_what_is_refused_names_the_line(tmp_path: Any) -> None:
    """In a file of its own, whose line 9 is wrong."""
    for number, (line, message) in enumerate(REFUSED.items()):
        path = tmp_path / f"wrong{number}.py"
        path.write_text(
            "import numpy as np, tcc, tcc.tensor as T\nfrom tcc import gpu\n"
            "TABLE = np.ones(3)\ndef again(x):\n    return again(x)\n"
            "@tcc.kernel('float32[n] -> float32[n]')\ndef wrong(x, y):\n    i = gpu.index()\n"
            f"    {line}\n"
        )
        scope: dict[str, Any] = {}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        with pytest.raises((TypeError, SyntaxError, NameError, AttributeError, OverflowError)) as told:
            scope["wrong"](T.fvector())
        where = "5" if line == "y[i] = again(1)" else "9"
        assert f"wrong{number}.py:{where}: {message}" in str(told.value), line
        assert where == "5" or f"\n    {line}" in str(told.value)


def test_what_no_kernel_can_be_is_said_where_it_is_written() -> None:
    with pytest.raises(
        TypeError, match="nothing has 1 parameters, and 'float32\\[n\\] -> float32\\[n\\]' has 2 arrays"
    ):

        @tcc.kernel("float32[n] -> float32[n]")
        def nothing(x):
            pass

    with pytest.raises(TypeError, match="'float32' is no signature like"):

        @tcc.kernel("float32")
        def unsigned(x):
            pass

    with pytest.raises(TypeError, match="a block has 32, 64, ... 1024 threads, got 100"):

        @tcc.kernel("-> float32[3]", block=100)
        def odd(y):
            pass

    with pytest.raises(TypeError, match="smooth: x must be float32 with 1 axes, got float64 with 1"):
        smooth(T.dvector(), 1.0)
    with pytest.raises(RuntimeError, match="tcc.gpu.index is a word of kernels"):
        gpu.index()


def test_a_kernel_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(smooth)) is smooth
    x = T.fvector("x")
    f = pickle.loads(pickle.dumps(tcc.function([x], totals(x))))
    assert f(np.ones(300, np.float32)).tolist() == [256, 44]


def test_kernels_are_ptx() -> None:
    n = tcc.ir.dims.name("n")
    vector, index = Type("f32", (n,)), Type("i64", (n,))
    for op, reads, writes in (
        (totals, [vector], [vector]),
        (counts, [index, vector], [vector, Type("i32", (n,))]),
        (smooth, [vector, Type("f32")], [vector]),
    ):
        for kernel in op.kernels(reads, writes):
            text = ptx(kernel, chip("sm_90"))
            assert f".entry {kernel.name}" in text
            assembled(text, "sm_90")


def test_they_are_part_of_a_graph() -> None:
    program = """
import sys
from standin_kernels import *
sys.path.insert(0, TESTS)
from test_kernels import *
x = T.fvector('x')
f = tcc.function([x], totals(x * 2), device='cuda')
given = np.ones(300, np.float32)
for _ in range(3): made = f(given)
print(made.tolist(), count(GRAPH_LAUNCHES))
"""
    here = __file__.rpartition("/")[0]
    assert standin.run(f"TESTS = {here!r}\n{program}") == "[512.0, 88.0] 2"
