"""Functions that run: interpreted as they are written, or compiled for the sizes that calls bring."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.functions import Made
from tcc.ir import interpret
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.core import Func
from tcc.ir.dims import size_error
from tcc.ir.text import parse_func
from tcc.lower import Lowered
from tcc.runtime.callable import Function as NativeFunction
from tcc.runtime.callable import Parameter, ordered
from tcc.runtime.signature import SizeMismatch
from tcc.runtime.tracebacks import shorten
from tcc.settings import device_name, wanted_device


class InterpretedFunction(Made):
    """Runs the IR as it was lowered, with NumPy: no compilation, for graphs that run once.

    `frame` is the interpreter, or one that looks at what passes through it (tcc.modes).
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        lowered: Lowered,
        returns: str,
        frame: type[interpret.Frame] = interpret.Frame,
    ) -> None:
        self.name, self.parameters, self.lowered, self.returns = name, tuple(parameters), lowered, returns
        self.func = lowered.func
        self.program = program_of(lowered, returns)
        self.frame = frame

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            values = ordered(self.name, self.parameters, args, kwargs)
            arrays = [p.convert(v) for p, v in zip(self.parameters, values, strict=True)]
            results = self.run(arrays)
        except Exception as e:
            shorten(e)
            raise
        return results[0] if self.returns == "array" else results

    def run(self, arrays: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """New arrays; updates are stored when everything is computed."""
        results, updates = self.computed(arrays)
        for n, value in updates.items():
            self.program.containers[n].set(value)
        return results

    def computed(
        self, arrays: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[list[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
        """The results, and the new values of shared variables by their names."""
        self.program.bind(arrays)
        containers = self.program.containers
        func = self.lowered.func
        shared = func.attrs.get("shared", [])
        dtypes = {p.name: p.type.dtype for p in func.body.params}
        held = (as_numbers(containers[n].get(), dtypes[n]) for n in shared)
        made = interpret.run(func, *arrays, *held, frame=self.frame())
        updates = {n: in_memory(made[index], dtypes[n]) for n, index in func.attrs.get("updates", {}).items()}
        count = len(made) - len(updates)
        return [np.array(r) for r in made[:count]], updates


class Specialised(Made):
    """A function that is compiled for the sizes that calls bring."""

    program: Any

    def optimised(self) -> Func:
        """The function after the passes, for the sizes of its last compile."""
        history = self.program.history
        return parse_func(self.program.text("fused", history[-1].sizes if history else {}))


class CompiledFunction(Specialised, NativeFunction):
    """What `tcc.function` makes for the CPU: native code, compiled for the sizes that calls bring."""


def compiled(name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
    """The function as native code, or as a program for a device, which is made at its first call."""
    wanted = wanted_device(lowered.device, [s.target for s in lowered.shared])
    if device_name(wanted) != "cpu":
        from tcc import devices  # a quarter of the modules that a function wants

        device = devices.chosen(wanted)
        if device is not None:
            return devices.compiled_for(device, name, parameters, lowered, returns)
    from tcc.codegen import support

    support.load()
    program = program_of(lowered, returns)
    made = CompiledFunction(name, parameters, program.specialise, program.turn)
    made.program, made.lowered, made.func = program, lowered, lowered.func
    return made


def program_of(lowered: Lowered, returns: Any) -> Any:
    """What the driver compiles, with the containers of the shared variables."""
    from tcc.driver import Program

    names = lowered.func.attrs.get("shared", [])
    containers = {n: s.container for n, s in zip(names, lowered.shared)}
    return Program(lowered.func, containers, returns, explained(lowered))


def explained(lowered: Lowered) -> Callable[[SizeMismatch], Exception]:
    """Turns a size mismatch at the entry into an error that names the op and the line that need the sizes equal."""
    params = lowered.func.body.params
    reasons = {f"{params[p].name}, axis {axis}": text for (p, axis), text in lowered.why.items()}

    def explain(e: SizeMismatch) -> Exception:
        text = str(e)
        where = text.split(":")[0]
        reason = reasons.get(where)
        if reason is None:
            return ValueError(f"Input dimension mis-match. {text}")
        error = type(size_error(reason))
        text += f"\nApply node that caused the error: {reason}"
        if reason.startswith("Elemwise") and re.search(r"size is 1, wanted|, wanted 1,| = 1 \(", text):
            text += "\nAn axis of size 1 broadcasts where its type says so: T.row, T.col, T.addbroadcast(x, axis)."
        return error(f"Input dimension mis-match. {text}")

    return explain
