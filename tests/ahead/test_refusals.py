"""Each mistake of a caller in C: its status, and the message that names the argument."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.codegen.aot.layout import STATUS
from tcc.codegen.target import cross, host
from tcc.runtime import library as loader
from tcc.runtime.manifest import Range

Change = Callable[["Call"], Any]


class Call:
    """The arguments of a right call of `f(x[n,3], y[n]) -> output_0[n,3]` at n = 4."""

    def __init__(self, model: loader.Model) -> None:
        self.model = model
        (info,) = model.info.entries[:1]
        self.arrays = [np.ones((4, 3), "f"), np.ones(4, "f"), np.zeros((4, 3), "f")]
        self.x, self.y, self.out = (loader._tensor(a, info.tensors[i]) for i, a in enumerate(self.arrays))
        self.ins, self.outs = loader._list([self.x, self.y]), loader._list([self.out])
        self.context, self.workspace = model.context.value, None

    def run(self) -> tuple[int, str]:
        run = self.model.c_function("f_run", ctypes.c_int32)
        run.argtypes = [ctypes.c_void_p] * 4
        ins, outs = (ctypes.cast(x, ctypes.c_void_p) if x else None for x in (self.ins, self.outs))
        status = run(self.context, ins, outs, self.workspace)
        return status, self.model.c_function("last_error", ctypes.c_char_p)().decode()

    def set(self, **fields: Any) -> None:
        """Changes fields of x; a list of numbers becomes an array of them."""
        for name, value in fields.items():
            setattr(self.x, name, (ctypes.c_int64 * len(value))(*value) if isinstance(value, list) else value)


@pytest.fixture
def model(build: Callable[..., Any]) -> loader.Model:
    w = tcc.shared(np.eye(3, dtype="f"), name="w")
    x, y = T.fmatrix("x"), T.fvector("y")
    f = tcc.function([x, y], T.exp(x.dot(w)) + T.sort(y).dimshuffle(0, "x"), name="f")  # takes a workspace
    made: loader.Model = build({"f": f}, {"x": ("n", 3), "y": ("n",)}, ranges={"n": Range(0, 8)})
    return made


MISTAKES: list[tuple[Change, str, str]] = [
    (lambda c: setattr(c, "context", None), "null", "the context is a null pointer"),
    (lambda c: setattr(c, "ins", None), "null", "x is a null pointer"),
    (lambda c: setattr(c, "outs", None), "null", "output_0 is a null pointer"),
    (lambda c: c.ins.__setitem__(1, None), "null", "y is a null pointer"),
    (lambda c: c.set(data=None), "null", "x has no data"),
    (lambda c: c.set(shape=None), "null", "x has no shape"),
    (lambda c: c.set(bits=64), "dtype", "x is float64 with 1 lanes, wanted float32"),
    (lambda c: c.set(code=0), "dtype", "x is int32 with 1 lanes, wanted float32"),
    (lambda c: c.set(lanes=4), "dtype", "x is float32 with 4 lanes, wanted float32"),
    (lambda c: c.set(code=77), "dtype", "x is unknown32 with 1 lanes, wanted float32"),
    (lambda c: c.set(device=(2, 0)), "device", "x is on a device of type 2, wanted memory of the CPU"),
    (lambda c: c.set(ndim=1), "rank", "x has 1 axes, wanted 2, [n,3]"),
    (lambda c: c.set(shape=[4, 2]), "size", "x has size 2 in axis 1, wanted 3"),
    (lambda c: c.set(shape=[5, 3]), "size", "y has size 4 in axis 0, wanted 5, which is n"),
    (lambda c: c.set(shape=[9, 3]), "range", "x has size 9 in axis 0, wanted 0 to 8"),
    (lambda c: c.set(shape=[-1, 3]), "range", "x has size -1 in axis 0, wanted 0 to 8"),
    (lambda c: c.set(shape=[2**62, 3]), "range", f"x has size {2**62} in axis 0, wanted 0 to 8"),
    (lambda c: c.set(strides=[1, 4]), "stride", "x has stride 4 in axis 1, wanted 1: it is to be dense, the last axis first"),
    (lambda c: c.set(strides=[6, 1]), "stride", "x has stride 6 in axis 0, wanted 3: it is to be dense, the last axis first"),
    (lambda c: c.set(byte_offset=2), "align", "x lies at an address that is no multiple of 4"),
    (lambda c: setattr(c, "workspace", 8), "align", "workspace lies at an address that is no multiple of 64"),
    (lambda c: c.set(data=c.out.data), "alias", "the memory of output_0 is also that of x"),
    (lambda c: c.set(data=c.out.data + 44), "alias", "the memory of output_0 is also that of x"),
    (lambda c: setattr(c, "workspace", c.out.data & -64), "alias", "the memory of output_0 is also that of workspace"),
]  # fmt: skip


def test_a_mistake_has_its_status_and_names_the_argument(model: loader.Model) -> None:
    for change, status, words in MISTAKES:
        call = Call(model)
        change(call)
        assert call.run() == (STATUS[status], f"m_f: {words}")
        assert not call.arrays[2].any()


def test_right_calls_are_taken(model: loader.Model) -> None:
    call = Call(model)
    assert call.run()[0] == 0
    np.testing.assert_allclose(call.arrays[2], 1 + np.exp(np.ones((4, 3))), rtol=1e-6)
    call.set(strides=[3, 1])
    assert call.run()[0] == 0
    none = Call(model)
    for t in (none.x, none.y, none.out):
        t.data, t.shape = None, (ctypes.c_int64 * 2)(0, 3)
    assert none.run()[0] == 0  # nothing of nothing


def test_sizes_that_no_memory_has(build: Callable[..., Any]) -> None:
    x = T.fmatrix("x")
    call = Call.__new__(Call)
    call.model = build({"f": tcc.function([x], x + x, name="f")})
    (info,) = call.model.info.entries[:1]
    array = np.ones((2, 2), "f")
    call.x, call.out = (loader._tensor(array, info.tensors[i]) for i in (0, 1))
    call.ins, call.outs = loader._list([call.x]), loader._list([call.out])
    call.context, call.workspace = call.model.context.value, None
    call.set(shape=[2**40, 2**40])
    assert call.run() == (STATUS["overflow"], "m_f: x is too large, [x_0,x_1]")


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="there is no qemu-x86_64 to be an old CPU")
def test_an_old_cpu_gets_a_message(build: Callable[..., Any], tmp_path: Path) -> None:
    if not host().triple.startswith("x86_64"):
        pytest.skip("a level of x86")
    x = T.fmatrix("x")
    build({"f": tcc.function([x], T.exp(x), name="f")}, target=cross("x86_64-linux-gnu", "x86-64-v3"))
    look = (
        "import ctypes, sys; m = ctypes.CDLL(sys.argv[1]); m.m_last_error.restype = ctypes.c_char_p; "
        "m.m_create.restype = ctypes.c_void_p; print(m.m_create(None), m.m_last_error().decode())"
    )
    command = [
        "qemu-x86_64",
        "-cpu",
        "Nehalem",
        sys.executable,
        "-S",
        "-c",
        look,
        next(tmp_path.glob("*.so")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("None m: this CPU lacks "), done.stderr
