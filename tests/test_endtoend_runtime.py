"""Whole programs through `tcc.function`: memory, bits, threads, signals, forks and the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.runtime.arenas import Blocks
from tcc.runtime.cache import Cache
from tcc.runtime.symbols import symbols


def minibatch_step(batch: int, hidden: int = 32, digits: int = 200) -> tuple[Callable[[int], Any], list[Any]]:
    """A step of a small network on minibatch `i` of digits that shared variables hold, and its parameters."""
    rng = np.random.default_rng(0)
    images = tcc.shared(rng.standard_normal((digits, 20)).astype("f4"), "images")
    labels = tcc.shared(rng.integers(0, 5, digits).astype("i4"), "labels")
    w1 = tcc.shared((0.1 * rng.standard_normal((20, hidden))).astype("f4"), "w1")
    b1 = tcc.shared(np.zeros(hidden, "f4"), "b1")
    w2 = tcc.shared((0.1 * rng.standard_normal((hidden, 5))).astype("f4"), "w2")
    x, y, i = T.fmatrix("x"), T.ivector("y"), T.lscalar("i")
    p = T.nnet.softmax(T.dot(T.tanh(T.dot(x, w1) + b1), w2))
    cost = -T.mean(T.log(p)[T.arange(y.shape[0]), y])
    parameters = [w1, b1, w2]
    rows = slice(i * batch, (i + 1) * batch)
    step = tcc.function(
        [i],
        cost,
        updates=[(w, w - np.float32(0.1) * g) for w, g in zip(parameters, tcc.grad(cost, parameters))],
        givens={x: images[rows], y: labels[rows]},
    )
    return step, parameters


# Memory.


def test_a_training_step_allocates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code has no allocator: working memory comes from the runtime, and only the first call asks for it."""
    assert not {"malloc", "calloc", "free", "mmap"} & symbols().keys()
    made = []
    make = Blocks._make
    monkeypatch.setattr(Blocks, "_make", lambda self, wanted: made.append(wanted) or make(self, wanted))
    step, _ = minibatch_step(batch=20)
    step(0)
    assert made
    made.clear()
    for index in range(1, 10):
        step(index)
    assert made == []
    step.free()
    step(0)
    assert made


def rows_of_zeros() -> Callable[[int], Any]:
    n = T.lscalar("n")
    z = T.zeros((n, n), dtype="float32")
    return tcc.function([n], T.dot(T.exp(z + 1), z).sum(axis=0), name="square")


def test_more_memory_than_there_is_when_the_size_is_a_number() -> None:
    f = rows_of_zeros()
    assert f(3).shape == (3,)
    with pytest.raises(
        MemoryError,
        match=r"square needs 13,194,\d+,\d+,\d+ bytes for \w+.* f32\[s1,s1\], written at .*test_endtoend.* and \d more",
    ):
        f(1 << 20)
    with pytest.raises(MemoryError, match="square needs at least 281,474,976,710,656 bytes for"):
        f(1 << 33)  # 4 n n wraps around to 0
    assert f(3).shape == (3,)


def test_more_memory_than_there_is_when_the_size_is_an_argument_s() -> None:
    """(n, 0) has no bytes, whatever n is."""
    x = T.fmatrix("x")
    n = x.shape[0]
    f = tcc.function([x], T.exp(T.zeros((n, n), dtype="float32") + n) + T.zeros((n, 1)), name="square")
    for rows in (1 << 20, 1 << 21, 1 << 33):  # known sizes, then sizes of run time
        with pytest.raises(
            MemoryError, match=rf"square needs [\d,]+ bytes, of which {8 * rows * rows:,} for [\w ]+ f64\["
        ):
            f(np.zeros((rows, 0), "f4"))
    assert f(np.zeros((2, 0), "f4")).shape == (2, 2)


# One function, many sizes.


def test_fifty_batch_sizes_compile_at_most_twice() -> None:
    x, w = T.fmatrix("x"), tcc.shared(np.ones((3, 2), "f4"), "w")
    f = tcc.function([x], T.nnet.softmax(T.dot(x, w)).sum(axis=0), name="batches")
    for batch in range(1, 51):
        np.testing.assert_allclose(f(np.ones((batch, 3), "f4")), [batch / 2] * 2, rtol=1e-5)
    first, second = f.program.history
    assert (first.reason, second.reason, second.varying) == ("first call", "x_0 changed", ("x_0",))
    told = tcc.explain(f)
    assert "1. first call: " in told and "2. x_0 changed: " in told and "left to run time: x_0" in told


# Threads.


def test_threads_call_one_function_at_once() -> None:
    """Each call is long enough to run without the GIL."""
    x = T.fvector("x")
    f = tcc.function([x], T.exp(x) + x)
    wrong = []

    def caller(number: int) -> None:
        given = np.full(20_000 + number, number, "f4")
        for _ in range(50):
            if not np.allclose(f(given), np.exp(given) + given, rtol=1e-5):
                wrong.append(number)

    run_at_once(caller, 4)
    assert wrong == []


def test_functions_in_two_threads_share_variables() -> None:
    """Calls that write exclude each other and readers: none is lost, and nobody sees half of one."""
    a, b = (tcc.shared(np.zeros(30_000, "f4"), name) for name in "ab")
    both = tcc.function([], updates=[(a, a + 1), (b, b + 1)])
    swap = tcc.function([], updates=[(a, b), (b, a)])
    look = tcc.function([], [a.min(), a.max(), b.min(), b.max()])
    seen: list[Any] = []

    def caller(number: int) -> None:
        for _ in range(60):
            (both, swap)[number % 2]()
            seen.append(look())

    run_at_once(caller, 4)
    assert all(len(set(map(float, four))) == 1 for four in seen)
    assert set(a.get_value()) == set(b.get_value()) == {120.0}


def run_at_once(target: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=target, args=(number,)) for number in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


# What fails leaves shared variables as they were.


def test_an_index_out_of_range_changes_nothing() -> None:
    w, i = tcc.shared(np.arange(4, dtype="f4"), "w"), T.lvector("i")
    count = tcc.shared(np.float32(0), "count")
    f = tcc.function([i], (w * 2)[i], updates=[(w, w + 1), (count, count + 1)])
    f([0, 3])
    for bad in ([4], [0, -5]):
        with pytest.raises(IndexError, match="out of bounds"):
            f(bad)
    np.testing.assert_array_equal(w.get_value(), [1, 2, 3, 4])
    assert count.get_value() == 1
    np.testing.assert_array_equal(f([-1]), [8])


def test_an_exception_in_a_user_written_op_changes_nothing() -> None:
    @tcc.as_op(itypes=[T.fvector], otypes=[T.fvector])
    def picky(x: Any) -> Any:
        if x[0] > 1:
            raise ArithmeticError("too much")
        return x

    x, w = T.fvector("x"), tcc.shared(np.zeros(3, "f4"), "w")
    f = tcc.function([x], updates=[(w, w + x + picky(x * 2))])
    f(np.full(3, 0.5, "f4"))
    with pytest.raises(ArithmeticError, match="too much"):
        f(np.ones(3, "f4"))
    np.testing.assert_array_equal(w.get_value(), [1.5] * 3)
    f(np.zeros(3, "f4"))


# Programs of their own.

STEP = """
import hashlib, os, signal, sys, threading, time, warnings
import numpy as np
import tcc, tcc.tensor as T

def softmax_step():
    rng = np.random.default_rng(0)
    images = tcc.shared(rng.standard_normal((400, 50)).astype("f4"), "images")
    labels = tcc.shared(rng.integers(0, 10, 400).astype("i4"), "labels")
    w1 = tcc.shared((0.1 * rng.standard_normal((50, 300))).astype("f4"), "w1")
    w2 = tcc.shared((0.1 * rng.standard_normal((300, 10))).astype("f4"), "w2")
    x, y, i = T.fmatrix("x"), T.ivector("y"), T.lscalar("i")
    p = T.nnet.softmax(T.dot(T.tanh(T.dot(x, w1)), w2))
    cost = -T.mean(T.log(p)[T.arange(y.shape[0]), y])
    updates = [(w, w - np.float32(0.1) * g) for w, g in zip((w1, w2), tcc.grad(cost, [w1, w2]))]
    rows = slice(i * 200, (i + 1) * 200)
    return tcc.function([i], cost, updates=updates, givens={x: images[rows], y: labels[rows]}), (w1, w2)

def small():
    x = T.fvector("x")
    f = tcc.function([x], T.exp(x) - 1)
    return round(float(f(np.ones(3, "f4"))[2]), 5)
"""


def start(program: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STEP + program],
        cwd="/",
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str]) -> str:
    try:
        out, err = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    assert child.returncode == 0, err
    return out


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    program = """
step, weights = softmax_step()
costs = [float(step(k % 2)) for k in range(20)]
print(hashlib.sha256(b"".join(w.get_value().tobytes() for w in weights)).hexdigest(), costs)
"""
    children = [start(program, TCC_CACHE="0", TCC_THREADS=count) for count in ("1", "2", "2")]
    results = [finish(child) for child in children]
    assert results[0] == results[1] == results[2]


def test_ctrl_c_comes_between_steps() -> None:
    """A call of endless length ends soon, and both variables are as before it, or both as after it."""
    program = """
n, x = T.lscalar("n"), T.fvector("x")
a, b = (tcc.shared(np.zeros(64, "f4"), name) for name in "ab")
h, _ = tcc.scan(lambda h, w: T.tanh(h * w), non_sequences=[x], outputs_info=[T.ones_like(x)], n_steps=n)
step = tcc.function([n, x], updates=[(a, a + 1), (b, b + 1 + 0 * h[-1])])
x = np.ones(64, "f4")
step(2, x)
ended, done = 0, 1
for k in range(6):
    threading.Timer(0.03 * k + 0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        while True:
            step(40 + k % 2 * 10**12, x)
            done += 1
    except KeyboardInterrupt:
        ended += time.monotonic() - began < 5
    values = np.concatenate([a.get_value(), b.get_value()])
    assert (values == values[0]).all() and values[0] - done in (0, 1), (values, done)
    done = values[0]
step(2, x)
assert (a.get_value() == done + 1).all() and (b.get_value() == done + 1).all()
print(ended)
"""
    assert finish(start(program)).split() == ["6"]


def test_a_forked_child_calls_what_its_parent_compiled_and_compiles_anew() -> None:
    program = """
step, weights = softmax_step()
first = float(step(0))
child = os.fork()
if child == 0:
    step(1), small(), softmax_step()[0](0)
    os._exit(0 if np.isfinite(weights[0].get_value()).all() and float(softmax_step()[0](0)) == first else 1)
step(1)
print(os.waitpid(child, 0)[1])
"""
    assert finish(start(program, TCC_THREADS="2", TCC_CACHE="0")).split() == ["0"]


# The cache.


def kept(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_two_processes_compile_the_same_at_once(tmp_path: Path) -> None:
    children = [start("print(small())", TCC_CACHE_DIR=str(tmp_path)) for _ in range(3)]
    assert [finish(child).split() for child in children] == [["1.71828"]] * 3
    assert kept(tmp_path) and Cache(tmp_path).verify() == []
    assert not [p for p in kept(tmp_path) if p.name.startswith(".")]


def test_a_writer_killed_between_writing_and_naming(tmp_path: Path) -> None:
    killed = start(
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nsmall()", TCC_CACHE_DIR=str(tmp_path)
    )
    assert killed.wait(60) == -9
    killed.communicate()
    assert [p.name[0] for p in kept(tmp_path)] == ["."]
    assert finish(start("print(small())", TCC_CACHE_DIR=str(tmp_path))).split() == ["1.71828"]


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + b"!", lambda data: b""]
)
def test_entries_that_went_bad(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    finish(start("print(small())", TCC_CACHE_DIR=str(tmp_path)))
    good = {p: p.read_bytes() for p in kept(tmp_path)}
    for path, data in good.items():
        path.write_bytes(spoil(data))
    assert finish(start("print(small())", TCC_CACHE_DIR=str(tmp_path))).split() == ["1.71828"]
    assert kept(tmp_path) == sorted(good) and Cache(tmp_path).verify() == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands in its place, as permissions do not keep the superuser out."""
    (tmp_path / "cache").write_text("")
    program = """
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    print(small(), [(str(w.message)[:25], w.filename) for w in said])
"""
    said = finish(start(program, TCC_CACHE_DIR=str(tmp_path / "cache")))
    assert said == "1.71828 [('compiled code is not kept', '<string>')]\n"
