"""How a function is made: compiled, interpreted, or interpreted under watch.  What `mode=` of `tcc.function` names.

A mode's `make` turns what was lowered into something to call.  The watching modes run operation by operation in the IR's
interpreter, so what they report is an operation of the user's program with its line, not a fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.callables import InterpretedFunction, compiled, explained
from tcc.ir import interpret
from tcc.ir.core import Op, Value
from tcc.ir.ops.control import called
from tcc.lower import Lowered
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function as NativeFunction
from tcc.runtime.callable import Parameter
from tcc.settings import OPTIMIZERS, config
from tcc.user_op import probed_by

Array = np.ndarray[Any, Any]
LINKERS = (
    "py",
    "c|py",
    "c|py_nogc",
    "c",
    "cvm",
    "cvm_nogc",
    "vm",
    "vm_nogc",
    "vm_py",
    "auto",
    "jax",
    "numba",
)
WITHOUT_REWRITES = ("None", "fast_compile", "merge")
BIG = 1e10  # what NanGuardMode takes for a number that got out of hand


class Mode:
    """Compiled with every pass, or, when `linker` or `optimizer` say so, interpreted as written.

    linker: "py" interprets.  optimizer: None, "fast_compile" and "merge" rewrite nothing, so there is nothing to compile.
    Theano's other words are taken and mean the same code; ValueError names an unknown one.
    """

    def __init__(self, linker: Any = None, optimizer: Any = "default", name: str | None = None) -> None:
        for what, word, known in (("linker", linker, LINKERS), ("optimizer", optimizer, OPTIMIZERS)):
            if isinstance(word, str) and word not in known:
                raise ValueError(f"no {what} {word!r} (there are {', '.join(known)})")
        self.linker, self.optimizer = linker, optimizer
        self.name = name or type(self).__name__
        self.tags: tuple[str, ...] = ()

    @property
    def interpreted(self) -> bool:
        return self.linker == "py" or self.optimizer is None or self.optimizer in WITHOUT_REWRITES

    def including(self, *tags: str) -> Mode:
        """This mode: which rewrites run is not chosen by Theano's names for its own."""
        return self

    excluding = including

    def clone(self, **_: Any) -> Mode:
        return self

    def make(self, name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
        """The function; see tcc.callables."""
        build: Any = InterpretedFunction if self.interpreted else compiled
        return build(name, parameters, lowered, returns)

    def __repr__(self) -> str:
        return f"{self.name}(linker={self.linker!r}, optimizer={self.optimizer!r})"

    __str__ = __repr__


# -- watching modes ----------------------------------------------------------------------------------------------------


class NanGuardMode(Mode):
    """Interprets, and raises AssertionError at the first NaN, infinity or number beyond 1e10 that an operation makes.

    The message names the operation and the user's line; inputs and shared variables are looked at before it runs.
    """

    def __init__(
        self,
        nan_is_error: bool = True,
        inf_is_error: bool = True,
        big_is_error: bool = True,
        optimizer: Any = "default",
        linker: Any = None,
    ) -> None:
        super().__init__(linker, optimizer)
        self.nan_is_error, self.inf_is_error, self.big_is_error = nan_is_error, inf_is_error, big_is_error

    def make(self, name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
        mode = self

        class Guard(interpret.Frame):
            def call(self, func: Any, arrays: Sequence[Any]) -> tuple[Array, ...]:
                for p, a in zip(func.body.params, arrays):
                    mode.look(np.asarray(a), f"the input {p.name}")
                return super().call(func, arrays)

            def checked(self, op: Op, value: Value, result: Any) -> Array:
                array = super().checked(op, value, result)
                if op.name != "const":
                    mode.look(array, described(op, value))
                return array

        return InterpretedFunction(name, parameters, lowered, returns, Guard)

    def look(self, array: Array, what: str) -> None:
        """AssertionError if `array`, the value of `what`, holds what this mode looks for."""
        if array.dtype.kind not in "fc" or not array.size:
            return
        size = np.abs(array)
        for found, wanted, text in (
            (np.isnan(size).any(), self.nan_is_error, "NaN"),
            (np.isinf(size).any(), self.inf_is_error, "Inf"),
            (np.max(np.where(np.isfinite(size), size, 0)) > BIG, self.big_is_error, "Big value"),
        ):
            if found and wanted:
                raise AssertionError(f"{text} detected\nNanGuardMode found an error in {what}")


class MonitorMode(Mode):
    """Interprets, and calls `pre_func(i, node, fn)` before and `post_func(i, node, fn)` behind each operation.

    i counts operations; `node` is the operation (`irtree.Operation`), whose `op` and `loc` say what and where it is; `fn.inputs` and
    `fn.outputs` are lists of one-element lists of arrays, as Theano's are.
    """

    def __init__(
        self,
        pre_func: Callable[..., Any] | None = None,
        post_func: Callable[..., Any] | None = None,
        optimizer: Any = "default",
        linker: Any = None,
    ) -> None:
        super().__init__(linker, optimizer)
        self.pre_func, self.post_func = pre_func, post_func

    def make(self, name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
        from tcc.irtree import Operation  # with the passes, which no function that the cache has needs

        mode = self

        class Monitor(interpret.Frame):
            count = 0

            def op(self, op: Op) -> None:
                if op.name == "const":
                    return super().op(op)
                seen = Cells([[self.env[v]] for v in op.reads], [[None] for _ in op.results])
                number, self.count = self.count, self.count + 1
                node = Operation(op)
                if mode.pre_func is not None:
                    mode.pre_func(number, node, seen)
                super().op(op)
                seen.outputs = [[self.env[v]] for v in op.results]
                if mode.post_func is not None:
                    mode.post_func(number, node, seen)

        return InterpretedFunction(name, parameters, lowered, returns, Monitor)


class Cells:
    """What a monitor sees of an operation that runs."""

    def __init__(self, inputs: list[list[Any]], outputs: list[list[Any]]) -> None:
        self.inputs, self.outputs = inputs, outputs


class DebugModeError(Exception):
    """DebugMode found something wrong."""


class BadOptimization(DebugModeError):
    """Compiled code gives other results than the program as written."""


class BadViewMap(DebugModeError):
    """A user-written op's result shares memory with an input, and its `view_map` does not say so."""


class BadDestroyMap(DebugModeError):
    """A user-written op changed an input, and its `destroy_map` does not say so."""


class InvalidValueError(DebugModeError):
    """An operation gave NaN or an infinity, and `check_isfinite` was asked for."""


class DebugFunction(InterpretedFunction):
    """Interprets, and compares with compiled code that works on copies of the shared variables."""

    def computed(
        self, arrays: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[list[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
        results, updates = super().computed(arrays)
        if any(op.name == "call" for op in self.func.body.walk()):
            return results, updates
        from tcc.codegen import support
        from tcc.driver import Program

        support.load()
        copies = {n: Container(c.get()) for n, c in self.program.containers.items()}
        program = Program(self.func, copies, "list", explained(self.lowered))
        native = NativeFunction(self.name, self.parameters, program.specialise)(*arrays)
        self.compare([(f"output {i}", a, b) for i, (a, b) in enumerate(zip(results, native, strict=True))])
        self.compare([(f"the new value of {n}", v, copies[n].get()) for n, v in updates.items()])
        return results, updates

    def compare(self, pairs: Sequence[tuple[str, Any, Any]]) -> None:
        for what, want, got in pairs:
            precision = np.finfo(want.dtype).eps if want.dtype.kind in "fc" else 0
            scale = np.max(np.abs(want[np.isfinite(want)]), initial=0) if precision else 0
            if not np.allclose(
                got, want, rtol=1000 * precision, atol=1000 * precision * scale, equal_nan=True
            ):
                raise BadOptimization(
                    f"{what} of {self.name}: compiled code gives\n{got}\nand the program as written\n{want}"
                )


class DebugMode(Mode):
    """Interprets the program as written, checks each result against its type, and compares with compiled code.

    BadOptimization names a result or an update that compiled code gives otherwise, beyond rounding; InvalidValueError, unless
    `check_isfinite` is False, the operation that made a NaN or an infinity; BadViewMap and BadDestroyMap a user-written op that
    touches its inputs without saying so.  Programs that call Python are not run twice.
    """

    def __init__(
        self,
        optimizer: Any = "default",
        check_isfinite: bool | None = None,
        linker: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(linker, optimizer)
        self.check_isfinite = check_isfinite is None or check_isfinite

    def make(self, name: str, parameters: Sequence[Parameter], lowered: Lowered, returns: str) -> Any:
        guard, mode = NanGuardMode(big_is_error=False), self

        class Watched(interpret.Frame):
            def python(self, name: str, function: Any, arrays: Sequence[Array]) -> Any:
                before = [a.copy() for a in arrays]
                results = function(*arrays)
                made: Any = results
                probed = probed_by(function)
                if probed is not None:  # whose sizes are asked first, which runs it
                    function, made = probed.function, getattr(probed.kept, "results", ())
                op = called(function).op
                if op is not None:
                    look_at_inputs(name, op, before, arrays, made)
                return results

            def checked(self, op: Op, value: Value, result: Any) -> Array:
                array = super().checked(op, value, result)
                try:
                    if mode.check_isfinite:
                        guard.look(array, described(op, value))
                except AssertionError as e:
                    raise InvalidValueError(str(e)) from None
                return array

        return DebugFunction(name, parameters, lowered, returns, Watched)


def look_at_inputs(
    name: str, op: Any, before: Sequence[Array], after: Sequence[Array], results: Sequence[Any]
) -> None:
    """BadDestroyMap or BadViewMap for what a user-written op did to its inputs, or gave of them, without saying so."""
    destroys, views = getattr(op, "destroy_map", None) or {}, getattr(op, "view_map", None) or {}
    destroyed = {k for operands in destroys.values() for k in operands}
    for k, (old, new) in enumerate(zip(before, after)):
        if k not in destroyed and old.tobytes() != new.tobytes():
            raise BadDestroyMap(
                f"{name} changed its input {k}: its destroy_map must say which output takes its place"
            )
    for number, result in enumerate(results):
        said = {*views.get(number, ()), *destroys.get(number, ())}
        for k, given in enumerate(after):
            if k not in said and isinstance(result, np.ndarray) and np.may_share_memory(result, given):
                raise BadViewMap(
                    f"output {number} of {name} shares memory with its input {k}: its view_map must say so"
                )


def described(op: Op, value: Value) -> str:
    where = f", written at {op.loc}" if op.loc else ""
    takes = ", ".join(str(v.type) for v in op.reads)
    return f"the output of {op.name}({takes}) : {value.type}{where}"


# -- names -------------------------------------------------------------------------------------------------------------

PREDEFINED: dict[str, Mode] = {
    "FAST_RUN": Mode(name="FAST_RUN"),
    "FAST_COMPILE": Mode(optimizer="fast_compile", name="FAST_COMPILE"),
    "DebugMode": DebugMode(),
    "NanGuardMode": NanGuardMode(),
    "MonitorMode": MonitorMode(),
}
PREDEFINED |= {  # which programs name, too
    "DEBUG_MODE": PREDEFINED["DebugMode"],
    "JAX": PREDEFINED["FAST_RUN"],
    "NUMBA": PREDEFINED["FAST_RUN"],
}


def get_mode(mode: Any = None) -> Mode:
    """A mode by its name, or itself; None is `config.mode`.  ValueError lists the names.

    "Mode", which `config.mode` is when nothing else was chosen, goes by `config.linker` and `config.optimizer`.
    """
    chosen = config.mode if mode is None else mode
    if isinstance(chosen, Mode):
        return chosen
    if chosen == "Mode":
        return Mode(config.linker, config.optimizer, "Mode")
    found = PREDEFINED.get(chosen) if isinstance(chosen, str) else None
    if found is None:
        raise ValueError(f"no mode {chosen!r} (there are {', '.join(PREDEFINED)})")
    return found


def get_default_mode() -> Mode:
    """What `config.mode` names."""
    return get_mode()
