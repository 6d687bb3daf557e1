"""python -m benchmarks.libraries --peers PYTHON [--seconds S] [MODEL ...]: models compiled ahead of time, on one thread.

Each library runs in turn with ONNX Runtime through its C interface, both called from C in one process, and with the function of
the running program whose sizes are names as well.  PYTHON is an interpreter that has onnx and onnxruntime.  Results are compared
before they are timed; ratios are medians over rounds, and above 1 the library is ahead.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TCC_THREADS"] = "1"

import numpy as np

from benchmarks.libraries import models
from tcc.ahead import library, with_shapes
from tcc.codegen.aot import library as aot
from tcc.codegen.target import host
from tcc.exporting import exported
from tcc.runtime import library as loader
from tcc.tools.building import shared_library

HERE = Path(__file__).parent
ROUND_US = 2000.0
Times = tuple[list[float], list[float]]


class Runtime:
    """ONNX Runtime behind its table of functions, whose order is fixed: numbers are places in it."""

    VERSION = 17
    MESSAGE, ENV, SESSION, RUN, OPTIONS, LEVEL, INTRA, INTER, TENSOR, MEMORY = (
        2,
        3,
        7,
        9,
        10,
        23,
        24,
        25,
        49,
        69,
    )

    def __init__(self, path: str) -> None:
        base = ctypes.CDLL(path)
        base.OrtGetApiBase.restype = ctypes.POINTER(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32))
        table = base.OrtGetApiBase()[0](self.VERSION)
        self.table = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
        self.env = self._made(self.ENV, ctypes.c_int(3), b"tcc")
        self.memory = self._made(self.MEMORY, ctypes.c_int(1), ctypes.c_int(0))

    def address(self, place: int) -> int:
        return int(self.table[place] or 0)

    def _call(self, place: int, *args: Any) -> None:
        status = ctypes.CFUNCTYPE(ctypes.c_void_p)(self.address(place))
        status.argtypes = None  # type: ignore[assignment]
        failed = status(*args)
        if failed:
            message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(self.address(self.MESSAGE))
            raise RuntimeError(message(failed).decode())

    def _made(self, place: int, *args: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._call(place, *args, ctypes.byref(made))
        return made

    def session(self, path: Path) -> ctypes.c_void_p:
        """On one thread."""
        options = self._made(self.OPTIONS)
        for place, value in ((self.LEVEL, 99), (self.INTRA, 1), (self.INTER, 1)):
            self._call(place, options, ctypes.c_int(value))
        return self._made(self.SESSION, self.env, os.fsencode(path), options)

    def tensor(self, array: models.Array) -> ctypes.c_void_p:
        """One that shares the array's memory."""
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        sizes = ctypes.c_size_t(array.nbytes), shape, ctypes.c_size_t(array.ndim)
        kind = ctypes.c_int(1 if array.dtype == np.float32 else 7)
        return self._made(self.TENSOR, self.memory, ctypes.c_void_p(array.ctypes.data), *sizes, kind)


def aligned(shape: Sequence[int], dtype: Any) -> models.Array:
    """Memory at a multiple of 64."""
    bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    made: models.Array = memory[start : start + bytes].view(dtype).reshape(shape)
    return made


class Call:
    """A call of a library with one input: what C wants of it, and its result."""

    def __init__(self, model: loader.Model, x: models.Array) -> None:
        entry = model.predict
        self.result = aligned(entry(x).shape, np.float32)
        self.inputs = loader._list([entry._input(entry._inputs[0], x)])
        self.outputs = loader._list([loader._tensor(self.result, entry._outputs[0])])
        name = f"{model.name}_predict"
        workspace_size = getattr(model._library, f"{name}_workspace_size")
        workspace_size.restype = ctypes.c_int64
        self.workspace = aligned([max(64, workspace_size(model.context, self.inputs))], np.uint8)
        self.run = getattr(model._library, f"{name}_run")
        self.arguments = (
            model.context,
            self.inputs,
            self.outputs,
            ctypes.c_void_p(self.workspace.ctypes.data),
        )

    def __call__(self) -> None:
        if self.run(*self.arguments):
            raise RuntimeError("the library refuses its input")


def in_turn(timed: Callable[[int, int], Times], seconds: float) -> Times:
    """Rounds of some milliseconds for so long."""
    first = max(sum(t) / len(t) for t in timed(3, 2))
    calls = max(1, int(ROUND_US / first))
    return timed(calls, max(5, int(seconds * 1e6 / (2 * calls * first))))


def said(times: Times) -> str:
    ours, theirs = times
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    return f"{statistics.median(ours):10.1f} us {statistics.median(theirs):10.1f} us {ratio:6.2f}"


def with_runtime(
    call: Call, runtime: Runtime, session: Any, x: models.Array, alternate: Any
) -> Callable[..., Times]:
    result = np.zeros_like(call.result)
    names, outputs = (ctypes.c_char_p * 1)(b"x"), (ctypes.c_char_p * 1)(b"y")
    values, results = ((ctypes.c_void_p * 1)(runtime.tensor(a)) for a in (x, result))
    run = ctypes.c_void_p(runtime.address(runtime.RUN))

    def timed(calls: int, rounds: int) -> Times:
        ours, theirs = (ctypes.c_double * rounds)(), (ctypes.c_double * rounds)()
        theirs_is = (run, session, names, values, outputs, results)
        if alternate(call.run, *call.arguments, *theirs_is, calls, rounds, ours, theirs):
            raise RuntimeError("a call failed")
        np.testing.assert_allclose(call.result, result, rtol=1e-3, atol=1e-6)
        return list(ours), list(theirs)

    return timed


def with_program(call: Call, function: Callable[..., Any], x: models.Array) -> Callable[..., Times]:
    def timed(calls: int, rounds: int) -> Times:
        times: Times = [], []
        for _ in range(rounds):
            for one, spans in ((call, times[0]), (lambda: function(x), times[1])):
                begin = time.perf_counter()
                for _ in range(calls):
                    one()
                spans.append((time.perf_counter() - begin) / calls * 1e6)
        np.testing.assert_allclose(call.result, function(x), rtol=1e-3, atol=1e-6)
        return times

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.libraries", description=(__doc__ or "").split(": ", 1)[1]
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(models.SHAPES)}")
    parser.add_argument("--peers", required=True, help="a Python that has onnx and onnxruntime")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each of two comparisons")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        where = "import onnxruntime, pathlib; print(*pathlib.Path(onnxruntime.__file__).parent.glob('capi/libonnxruntime.so*'))"
        found = subprocess.run(
            [given.peers, "-c", where], check=True, capture_output=True, text=True
        ).stdout.split()
        subprocess.run([given.peers, "-m", "benchmarks.libraries.onnx_models", folder], check=True)
        helper = folder / "alternate.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", HERE / "alternate.c", "-o", helper], check=True)
        runtime, alternate = Runtime(found[0]), ctypes.CDLL(str(helper)).alternate
        print(
            f"{'':11} {'library':>13} {'ONNX Runtime':>13} {'ratio':>6}  {'library':>13} {'program':>13} {'ratio':>6}"
        )
        for model in given.models or models.SHAPES:
            function, machine = models.function(model), host()
            made = with_shapes(exported({"predict": function}, model), {"x": models.SHAPES[model]})
            path = folder / f"lib{model}.so"
            path.write_bytes(shared_library(aot.library_object(library(made, machine)), machine))
            loaded, session = loader.load(path, name=model), runtime.session(folder / f"{model}.onnx")
            for batch in models.BATCHES[model]:
                function(models.given(model, batch))  # so that sizes become names
            for batch in models.BATCHES[model]:
                value = models.given(model, batch)
                x = aligned(value.shape, value.dtype)
                x[...] = value
                call = Call(loaded, x)
                pairs = with_runtime(call, runtime, session, x, alternate), with_program(call, function, x)
                print(f"{model:6} {batch:4}", *(said(in_turn(p, given.seconds)) for p in pairs), flush=True)


if __name__ == "__main__":
    main()
