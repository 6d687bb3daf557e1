"""The compiled function as Python sees it: native code for plain calls, and a slow path that mends everything else."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tcc.ir.dims import evaluate
from tcc.ir.types import memory_dtype
from tcc.runtime import layout as at
from tcc.runtime import native, threads
from tcc.runtime.arenas import Arenas, Claim, LateBlocks, require_memory
from tcc.runtime.buffers import Array, Container, ObjectContainer, Storage
from tcc.runtime.host import HostCall, trampoline
from tcc.runtime.native import Native
from tcc.runtime.panels import Panels
from tcc.runtime.signature import Signature, SizeMismatch
from tcc.runtime.tracebacks import shorten

# What an op's failure means: (a, b, c, d) of the error record -> the exception to raise.
Failure = Callable[[int, int, int, int], Exception]
Orders = tuple[tuple[int, ...], ...]  # of each argument's axes as memory has them; empty for C order
TURNED_BYTES = 1 << 18  # of an array in another order, from which on code that reads it so pays
LEAST_RUN = 8  # of its elements along the axis that is dense
MOST_ORDERS = 4  # for which a function has code of its own
PATIENCE = 1000  # tries without progress before the entry and the slow path are taken to disagree


class Parameter(NamedTuple):
    """One argument.  `convert` takes what the user gave and returns it as an array (any object, if dtype is "object").

    It raises TypeError or ValueError for what does not fit.  `default` is asked at each call that leaves the argument out.
    """

    name: str
    dtype: str
    rank: int
    convert: Callable[[Any], Any]
    default: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Objects:
    """Where the call's list of objects comes from and goes to, by position; None for a function without object values."""

    count: int
    inputs: Mapping[int, int]  # parameter -> position
    containers: tuple[tuple[ObjectContainer, int, bool], ...] = ()  # container, position, written
    updates: tuple[tuple[ObjectContainer, int], ...] = ()  # container, position of its new value
    outputs: Mapping[int, int] = field(default_factory=dict)  # place in the list of outputs -> position


class Variant:
    """One compilation of a function: its code, its record, its arenas.  `entry` is the address of what codegen/entry.py
    writes; `image` keeps it in memory.

    `containers` go with `signature.shared` one to one, each only once, `panels` with `signature.kept`.  `failures` maps op ids to
    exceptions; `claims` says what the memory is for.
    """

    def __init__(
        self,
        signature: Signature,
        entry: int,
        image: object,
        *,
        containers: Sequence[Container] = (),
        failures: Mapping[int, Failure] | None = None,
        host_calls: Sequence[HostCall] = (),
        objects: Objects | None = None,
        claims: Sequence[Claim] = (),
        panels: Sequence[Panels] = (),
    ) -> None:
        for spec, container in zip(signature.shared, containers, strict=True):
            if container.dtype != memory_dtype(spec.dtype) or container.rank != len(spec.shape):
                raise TypeError(f"{spec}: its container holds {container.dtype} of rank {container.rank}")
        if len({id(c) for c in containers}) != len(containers):
            raise ValueError("a container is in the list twice, so its lock could never be had")
        self.signature, self.containers, self.objects = signature, tuple(containers), objects
        self.failures = failures or {}
        self.claims, self.panels = tuple(claims), tuple(panels)
        self.vectorcall = native.provided("tcc_slow" if objects else "tcc_call")
        self._image = image
        written = [s.written for s in signature.shared]
        held: list[Storage] = list(containers)
        if objects:
            held += [c for c, _, _ in objects.containers]
            written += [w for _, _, w in objects.containers]
        self._written = written
        self._host = trampoline(host_calls, held, written)
        self._words = _record(len(containers) + len(panels))
        self._words[at.RECORD_HOST] = id(self._host)
        self._words[at.RECORD_ENTRY] = entry
        self._words[at.RECORD_INPUTS] = len(signature.inputs)
        records = [c.record for c in containers] + [p.record for p in panels]
        for index, record in enumerate(records, at.RECORD_SHARED):
            self._words[index] = record
        self.arenas, self.late = Arenas(self.record), LateBlocks(self.record)
        pointer = ctypes.c_void_p
        self._attempt = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, pointer, pointer, pointer)(
            entry
        )

    @property
    def record(self) -> int:
        return ctypes.addressof(self._words)

    def attempt(
        self, function: Function, arrays: Sequence[Array], objects: list[object] | None = None
    ) -> Any:
        """The result, or NotImplemented if the native entry does not take these arrays now."""
        args = (ctypes.c_void_p * len(arrays))(*map(id, arrays))
        held = None if objects is None else id(objects)
        return self._attempt(function, self.record, ctypes.addressof(args), held)

    def mismatch(self, arrays: Sequence[Array]) -> SizeMismatch | None:
        """Why this code is not for these sizes."""
        try:
            self.signature.bind([a.shape for a in arrays], [c.shape for c in self.containers])
        except SizeMismatch as e:
            return e
        return None

    def grow(self, name: str, arrays: Sequence[Array]) -> bool:
        """Whether a call that found too little memory may try again; MemoryError if there is not as much to be had."""
        arena, total = self._words[at.RECORD_WANTED_ARENA], self._words[at.RECORD_WANTED_TOTAL]
        raised = total > self._words[at.RECORD_CHECKED]
        if raised:
            sizes = self.signature.bind([a.shape for a in arrays], [c.shape for c in self.containers])
            wanted = self.signature.bytes(sizes, threads.pool().limit)
            require_memory(wanted, self.arenas.bytes, name, self._largest(sizes))
            self._words[at.RECORD_CHECKED] = total
        return self.arenas.provide(arena) or raised

    def _largest(self, sizes: Mapping[str, int]) -> str:
        """What most of the memory is for."""
        known = [(evaluate(c.bytes, sizes), c.purpose) for c in self.claims if c.bytes is not None]
        return f", of which {max(known)[0]:,} for {max(known)[1]}" if known else ""

    def grant(self, name: str, claim: int, bytes: int) -> None:
        """MemoryError if a running call cannot have so much memory for a claim."""
        if bytes >= at.UNCHECKED_BYTES:
            purpose = self.claims[claim].purpose if claim < len(self.claims) else "a value"
            require_memory(bytes, 0, name, f" for {purpose}")

    def wait(self) -> bool:
        """Whether a container was in use, and now is not."""
        busy = [(c, w) for c, w in zip(self.containers, self._written) if c.busy(w)]
        for container, written in busy:
            container.wait(written)
        return bool(busy)

    def keep(self) -> bool:
        """Whether panels were made of containers whose values stay."""
        return any([panels.make() for panels in self.panels])


def _record(containers: int) -> ctypes.Array[ctypes.c_int64]:
    words = (ctypes.c_int64 * (at.RECORD_SHARED + containers))()
    words[at.RECORD_API] = ctypes.addressof(native.api_table(_slow, _raise, _adopt, _grant, _late))
    words[at.RECORD_POOL] = threads.pool().address
    words[at.RECORD_CHECKED] = at.UNCHECKED_BYTES
    return words


@functools.cache
def _empty_record() -> ctypes.Array[ctypes.c_int64]:
    """That of functions which have not been compiled yet."""
    return _record(0)


def ordered(
    name: str, parameters: Sequence[Parameter], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Sequence[Any]:
    """A call's arguments in the order of the parameters, with defaults for those left out; TypeError says what does not fit."""
    if len(args) == len(parameters) and not kwargs:
        return args
    names = [p.name for p in parameters]
    if len(args) > len(names):
        raise TypeError(
            f"{name} takes {len(names)} arguments ({', '.join(map(str, names))}), got {len(args)}"
        )
    unknown = [n for n in kwargs if n not in names[len(args) :] or names.count(n) > 1]
    if unknown:
        count = names.count(unknown[0])
        why = (
            f"is not among {', '.join(names) or 'none'}"
            if not count
            else "is given twice"
            if count == 1
            else f"names {count} inputs"
        )
        raise TypeError(f"{name}: the argument {unknown[0]!r} {why}")
    values = list(args)
    for parameter in parameters[len(args) :]:
        if parameter.name in kwargs:
            values.append(kwargs[parameter.name])
        elif parameter.default is not None:
            values.append(parameter.default())
        else:
            raise TypeError(f"{name}: Missing required input: {parameter.name}")
    return values


def converted(name: str, parameter: Parameter, value: Any) -> Any:
    """One argument as the native entry takes it, but for the order of its axes: an aligned array of the parameter's dtype and rank,
    or TypeError."""
    value = parameter.convert(value)
    if parameter.dtype == "object":
        return value
    dtype = memory_dtype(parameter.dtype)
    if value.dtype != dtype or value.ndim != parameter.rank:
        raise TypeError(
            f"{name}: {parameter.name} must be {dtype} of rank {parameter.rank}, "
            f"got {value.dtype} of rank {value.ndim}"
        )
    array = np.asarray(value)
    if not array.flags.aligned or not array.dtype.isnative:
        array = array.astype(dtype)
    return array if array.dtype is dtype else array.view(dtype)


def in_order(array: Array) -> Array:
    """The same in C order."""
    return np.asarray(array, order="C")


def order_of(array: Array) -> tuple[int, ...]:
    """The axes of a dense array in the order in which memory has them; empty for C order, and for what is not worth code of its
    own."""
    if array.nbytes < TURNED_BYTES or array.flags.c_contiguous:
        return ()
    order = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    if array.shape[order[-1]] < LEAST_RUN:
        return ()
    return order if array.transpose(order).flags.c_contiguous else ()


Specialise = Callable[["Function", Sequence[Array]], Variant]


class Function(Native):
    """Called with arrays in the order of `parameters`, or by their names.

    `specialise(function, arrays)` compiles a Variant for arrays of these sizes; it is asked at the first call, and again
    when the present variant does not fit, and raises SizeMismatch when no code could fit.

    `turn(orders)`, if given, is such a `specialise` for large dense arrays in other orders of their axes, whose transposes in C
    order it takes, or None where they are better copied.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        specialise: Specialise,
        turn: Callable[[Orders], Specialise | None] = lambda orders: None,
    ) -> None:
        self.name, self.parameters = name, tuple(parameters)
        self.turned: dict[Orders, Function | None] = {}
        self._turn = turn
        self.variants: list[Variant] = []  # all stay: a call in another thread may be inside an older one
        self._specialise = specialise
        self._compiling = threading.RLock()
        self.enter(native.provided("tcc_slow"), ctypes.addressof(_empty_record()))

    @property
    def variant(self) -> Variant | None:
        """The one that calls enter."""
        return self.variants[-1] if self.variants else None

    def install(self, variant: Variant) -> None:
        self.variants.append(variant)
        self.enter(variant.vectorcall, variant.record)

    def free(self) -> None:
        """Gives the working memory back; the next call takes it anew."""
        for variant in self.variants:
            variant.arenas.trim()
            variant.late.trim()
            for panels in variant.panels:
                panels.free()
        for turned in self.turned.values():
            if turned is not None:
                turned.free()

    def call_slowly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The whole meaning of a call: arguments are converted, code is compiled, memory found and locks waited for."""
        given = ordered(self.name, self.parameters, args, kwargs)
        values = [converted(self.name, p, v) for p, v in zip(self.parameters, given, strict=True)]
        turned, orders = self._for_orders(values)
        if turned is not None:
            given = [v.transpose(order) if order else v for v, order in zip(values, orders)]
            if not turned.writes_what_it_reads(given):
                return turned(*given)
        arrays = self._arrays(values)
        variant = self.variant or self._compile(None, arrays)
        if variant.objects is None:
            return self._persist(arrays, None)
        return self._with_objects(variant.objects, values, arrays)

    def _for_orders(self, values: Sequence[Any]) -> tuple[Function | None, Orders]:
        """The function that takes such values turned, if there is one."""
        orders = tuple(order_of(v) if isinstance(v, np.ndarray) else () for v in values)
        if not any(orders):
            return None, orders
        if orders not in self.turned:
            with self._compiling:
                if orders not in self.turned and len(self.turned) < MOST_ORDERS:
                    specialise = self._turn(orders)
                    as_they_are = [p._replace(convert=lambda v: v, default=None) for p in self.parameters]
                    made = specialise and Function(self.name, as_they_are, specialise)
                    self.turned[orders] = made
        return self.turned.get(orders), orders

    def _arrays(self, values: Sequence[Any]) -> list[Array]:
        return [in_order(v) for p, v in zip(self.parameters, values) if p.dtype != "object"]

    def writes_what_it_reads(self, values: Sequence[Any]) -> bool:
        """Whether one of these arguments lies in the memory of a shared variable that the function updates, as a transposed view
        that was borrowed from it does: it must be copied, for it is not read element by element as it is written."""
        arrays = self._arrays(values)
        variant = self.variant or self._compile(None, arrays)
        return any(
            container.overlaps(array)
            for spec, container in zip(variant.signature.shared, variant.containers)
            if spec.written
            for array in arrays
        )

    def _persist(self, arrays: Sequence[Array], objects: list[object] | None) -> Any:
        """Tries until the native entry takes the call; everything that can stand in its way is mended here."""
        for _ in range(PATIENCE):
            variant = self.variant
            assert variant is not None
            result = variant.attempt(self, arrays, objects)
            if result is not NotImplemented:
                return result
            if variant.mismatch(arrays):
                self._compile(variant, arrays)
            elif not variant.grow(self.name, arrays) and not variant.wait() and not variant.keep():
                time.sleep(0)
        raise RuntimeError(f"{self.name}: the native entry refuses arguments that fit: {_described(arrays)}")

    def _compile(self, unfit: Variant | None, arrays: Sequence[Array]) -> Variant:
        with self._compiling:
            if self.variant is not None and self.variant is not unfit:  # another thread was first
                return self.variant
            variant = self._specialise(self, arrays)
            problem = variant.mismatch(arrays)
            if problem:
                raise problem
            self.install(variant)
            return variant

    def _with_objects(self, plan: Objects, values: Sequence[Any], arrays: Sequence[Array]) -> Any:
        objects: list[Any] = [None] * plan.count
        for parameter, position in plan.inputs.items():
            objects[position] = values[parameter]
        with contextlib.ExitStack() as locks:
            for container, position, written in sorted(plan.containers, key=lambda c: c[0].record):
                locks.enter_context(container.held(written))
                objects[position] = container.get(borrow=True)
            result = self._persist(arrays, objects)
            for container, position in plan.updates:
                container.adopt(objects[position])
        for place, position in sorted(plan.outputs.items()):
            if not isinstance(result, list):
                return objects[position]
            result.insert(place, objects[position])
        return result


def _described(arrays: Sequence[Array]) -> str:
    return ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays) or "none"


# What native code calls through the API table.


def _slow(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function.call_slowly(args, kwargs)
    except Exception as e:
        shorten(e)
        raise


def _variant_of(function: Function, record: int) -> Variant:
    return next(v for v in function.variants if v.record == record)


def _raise(function: Function, record: int, op: int, a: int, b: int, c: int, d: int) -> NoReturn:
    failure = _variant_of(function, record).failures.get(op)
    if failure is None:
        raise RuntimeError(f"{function.name}: op {op} failed with {(a, b, c, d)}")
    raise failure(a, b, c, d)


def _adopt(function: Function, record: int, index: int, array: Array) -> None:
    _variant_of(function, record).containers[index].adopt(array)


def _grant(function: Function, record: int, claim: int, bytes: int) -> None:
    _variant_of(function, record).grant(function.name, claim, bytes)


def _late(function: Function, record: int, claim: int, bytes: int, old: int) -> int:
    """The address of a new late block; `old`, which is too small, is given back."""
    variant = _variant_of(function, record)
    variant.late.drop(old)
    variant.grant(function.name, claim, bytes)
    return variant.late.make(bytes)
