"""Runs functions with NumPy, one operation at a time, at any level: the meaning every backend is tested against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc.ir import arrays, dims
from tcc.ir.arrays import Array
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Expr, Size
from tcc.ir.optable import TABLE, complete_attrs
from tcc.ir.types import Type, numpy_dtype

UNADDRESSABLE = 1 << 48
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # the axes of an iteration space


def run(func: Func, *arrays: Any, frame: Frame | None = None) -> tuple[Array, ...]:
    """The results of `func` for `arrays`, one for each parameter.

    Of a placed function the arrays stand for the inputs and the shared variables, which are written in place; the
    results are its outputs.  TypeError or ValueError names the argument that does not fit; an exception of an
    operation carries a note with where it was written.
    """
    with np.errstate(all="ignore"):
        return (frame or Frame()).call(func, arrays)


class Frame:
    """One run: the value of everything defined so far, and the number that each size name stands for."""

    def __init__(self) -> None:
        self.env: dict[Value, Array] = {}
        self.sizes: dict[str, int] = {}
        self.roots: dict[
            Value, tuple[Array, int]
        ] = {}  # place -> its memory as one row, and the element where it begins
        self.point: Sequence[Any] = ()  # in a fuse body: the index along each axis of the iteration space
        self.arena = np.empty(0, np.uint8)
        self.outputs: dict[int, Array] = {}

    def call(self, func: Func, arrays: Sequence[Any]) -> tuple[Array, ...]:
        params = [p for p in func.body.params if space(p) != "output"]
        if len(arrays) != len(params):
            raise TypeError(f"@{func.name} takes {len(params)} arguments, got {len(arrays)}")
        given = [as_argument(p, a) for p, a in zip(params, arrays)]
        self.sizes = bind_sizes(params, given)
        for p, a in zip(params, given):
            self.define(p, rounded(a, p.type) if space(p) != "shared" else a)
        if not any(p.type.place for p in func.body.params) and "outputs" not in func.attrs:
            return tuple(self.block(func.body))
        return self.placed(func)

    def placed(self, func: Func) -> tuple[Array, ...]:
        # NaN and its like, to show what is read before it is written
        self.arena = np.full(self.number(func.attrs.get("arena", 0)), 0xFF, np.uint8)
        allocs = [op for op in func.body.walk() if op.name == "alloc"]
        late = {op.attrs["offset"] for op in allocs if space(op.result) == "output"}
        count = len(func.attrs.get("outputs", ())) or sum(space(p) == "output" for p in func.body.params)
        early = (k for k in range(count) if k not in late)
        for p in func.body.params:
            if space(p) == "output":
                self.outputs[next(early)] = self.fresh(p)
        self.block(func.body)
        return tuple(self.outputs[k] for k in range(count))

    # -- values, sizes, places -----------------------------------------------------------------------------------

    def define(self, value: Value, array: Array) -> None:
        self.env[value] = array
        if value.type.place is not None:
            self.roots[value] = array.reshape(-1), 0

    def fresh(self, value: Value) -> Array:
        """New memory for a place, filled with NaN or its like."""
        shape, dtype = self.shape(value.type), numpy_dtype(value.type.dtype)
        array = np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)
        self.define(value, array)
        return array

    def number(self, size: Size) -> int:
        return dims.evaluate(size, self.sizes)

    def shape(self, type: Type) -> tuple[int, ...]:
        return tuple(map(self.number, type.shape))

    def numbers(self, value: Any) -> Any:
        """An attribute's value with numbers for sizes."""
        if isinstance(value, Expr):
            return self.number(value)
        if isinstance(value, list | tuple):
            return type(value)(map(self.numbers, value))
        if isinstance(value, Type):
            return value.substitute(self.sizes)
        return value

    def attrs(self, op: Op) -> dict[str, Any]:
        return {k: self.numbers(v) for k, v in op.attrs.items() if k != "into"}

    # -- blocks and operations -----------------------------------------------------------------------------------

    def block(self, block: Block) -> list[Array]:
        """What the block yields."""
        for op in block.ops:
            if op.name == "yield":
                return [self.env[v] for v in op.operands]
            try:
                self.op(op)
            except Exception as e:
                if isinstance(e, ValueError) and (huge := self.unaddressable(op)):
                    e = MemoryError(f"{op.name} needs {huge:,} bytes")
                where = f", written at {op.loc}" if op.loc else ""
                note = f"in {op.attrs.get('name', op.name)}{where}"
                if note not in getattr(e, "__notes__", ()):
                    e.add_note(note)
                raise e
        raise AssertionError("a block without yield")

    def unaddressable(self, op: Op) -> int:
        """The bytes of a result that no address space holds, which NumPy refuses as a wrong value; else 0."""
        sizes = [r.type.bytes for r in op.results if dims.names_of(r.type.bytes) <= self.sizes.keys()]
        return next((n for n in map(self.number, sizes) if n > UNADDRESSABLE), 0)

    def op(self, op: Op) -> None:
        if op.name in PLACES:
            PLACES[op.name](self, op)
            return
        reads = [self.env[v] for v in op.reads]
        handler = HANDLERS.get(op.name)
        results = handler(self, op, reads) if handler else self.plain(op, reads)
        if op.into:
            for place, result in zip(op.places, results, strict=True):
                self.env[place][...] = self.checked(op, place, result)
            return
        for value, result in zip(op.results, results, strict=True):
            self.define(value, self.checked(op, value, result))

    def python(self, name: str, function: Callable[..., Any], arrays: Sequence[Array]) -> Any:
        """What a Python function gives for arrays that are its own."""
        return function(*arrays)

    def plain(self, op: Op, reads: Sequence[Array]) -> Sequence[Any]:
        """What the row's own NumPy function gives."""
        if op.defn.ref is None:
            raise NotImplementedError(f"{op.name} has no meaning in NumPy")
        results = op.defn.ref(*reads, **self.attrs(op))
        return results if isinstance(results, tuple) else (results,)

    def checked(self, op: Op, value: Value, result: Any) -> Array:
        """The result as the array of its type; AssertionError when the row's `ref` and its type rule disagree."""
        array = np.asarray(result)
        wanted = numpy_dtype(value.type.dtype)
        assert array.dtype == wanted, f"{op.name} gave {array.dtype}, its type is {value.type}"
        if not len(self.point):
            shape = self.shape(value.type)
            assert array.shape == shape, (
                f"{op.name} gave shape {array.shape}, its type is {value.type} = {shape}"
            )
        return rounded(array, value.type)


# -- operations with blocks --------------------------------------------------------------------------------------


def scan(frame: Frame, op: Op, reads: list[Array]) -> list[Array]:
    attrs = frame.attrs(op)
    seqs, carries, length = attrs["seqs"], attrs["carries"], attrs["length"]
    body = op.block
    state = list(reads[seqs : seqs + carries])
    ends = len(op.results) - bool(attrs["until"])
    stacked = [np.zeros(frame.shape(r.type), numpy_dtype(r.type.dtype)) for r in op.results[carries:ends]]
    made = 0
    for t in reversed(range(length)) if attrs["reverse"] else range(length):
        for p, a in zip(body.params, [*(s[t] for s in reads[:seqs]), *state]):
            frame.env[p] = np.asarray(a)
        out = frame.block(body)
        state = out[:carries]
        for whole, row in zip(stacked, out[carries:ends]):
            whole[t] = row
        made += 1
        if attrs["until"] and out[-1]:
            break
    return [*state, *stacked, *([np.asarray(made, np.int64)] if attrs["until"] else [])]


def loop(frame: Frame, op: Op, reads: list[Array]) -> list[Array]:
    for i in range(frame.number(op.attrs["length"])):
        frame.sizes[str(op.attrs["index"])] = i
        frame.block(op.block)
        if reads and reads[0]:
            break
    return []


def ifelse(frame: Frame, op: Op, reads: list[Array]) -> list[Array]:
    return frame.block(op.blocks[0 if reads[0] else 1])


def fuse(frame: Frame, op: Op, reads: list[Array]) -> list[Array]:
    attrs = frame.attrs(op)
    made = (
        rows(frame, op, reads)
        if attrs["row"]
        else points(frame, op.block, reads, attrs["maps"], attrs["dims"])
    )
    reduce = attrs["reduce"] or [""] * len(made)
    return [
        collect(m, out, how, len(attrs["dims"]))
        for m, out, how in zip(made, attrs["out"], reduce, strict=True)
    ]


def points(
    frame: Frame, body: Block, reads: Sequence[Array], maps: Sequence[str], sizes: Sequence[int]
) -> list[Array]:
    """A scalar body for all points of the iteration space at once: each scalar is an array over the space."""
    outside = frame.point
    rank = len(sizes)
    frame.point = [np.arange(s).reshape([-1] + [1] * (rank - k - 1)) for k, s in enumerate(sizes)] or (0,)
    for p, a, map in zip(body.params, reads, maps, strict=True):
        frame.env[p] = spread(a, map, rank)
    made = [np.broadcast_to(a, sizes) for a in frame.block(body)]
    frame.point = outside
    return made


def spread(array: Array, map: str, rank: int) -> Array:
    """`array`, whose axes are those of the iteration space that `map` names, laid out to broadcast over the space."""
    order = sorted(range(len(map)), key=map.__getitem__)
    index = tuple(slice(None) if LETTERS[k] in map else None for k in range(rank))
    return array.transpose(order)[index]


def rows(frame: Frame, op: Op, reads: list[Array]) -> list[Array]:
    """A row kernel: its body once for each row, which is the last axis of the iteration space."""
    attrs = frame.attrs(op)
    *outer, length = attrs["dims"]
    body, outside = op.block, frame.point
    wide = [bool(v.type.shape) for v in body.yields]
    made = [
        np.empty((*outer, length) if w else tuple(outer), numpy_dtype(v.type.dtype))
        for v, w in zip(body.yields, wide)
    ]
    letters = LETTERS[: len(outer)]
    for at in np.ndindex(*outer):
        frame.point = (*at, 0)
        for p, a, map in zip(body.params, reads, attrs["maps"], strict=True):
            index = tuple(at[letters.index(m)] if m in letters else slice(None) for m in map)
            frame.env[p] = np.asarray(a[index])
        for whole, row in zip(made, frame.block(body)):
            whole[at] = row
    frame.point = outside
    return made


def collect(made: Array, out: str, how: str, rank: int) -> Array:
    """Reduces over the axes that `out` leaves out, and puts the others in its order."""
    letters = LETTERS[: made.ndim]
    missing = [k for k, letter in enumerate(letters) if letter not in out]
    if missing:
        row = TABLE[how]
        assert row.ref is not None
        made = np.asarray(row.ref(made, **complete_attrs(row, {"axes": missing})))
    kept = [letter for letter in letters if letter in out]
    return made.transpose([kept.index(letter) for letter in out])


def product(frame: Frame, op: Op, reads: list[Array]) -> Sequence[Any]:
    """The product, added to what its place holds if it accumulates; a block is applied to each finished element."""
    (product,) = frame.plain(op, reads[:2])
    if op.attrs.get("accumulate"):
        product = product + frame.env[op.places[0]]
    if not op.blocks:
        return (product,)
    maps = [LETTERS[: product.ndim], *op.attrs["maps"]]
    return points(frame, op.block, [product, *reads[2 : 1 + len(maps)]], maps, product.shape)


def iota(frame: Frame, op: Op, reads: list[Array]) -> Sequence[Any]:
    """In a body with `shape = []`, the index along that axis of the iteration space."""
    if not len(frame.point) or op.attrs["shape"]:
        return frame.plain(op, reads)
    return (np.asarray(frame.point[op.attrs["axis"]]).astype(numpy_dtype(op.attrs["dtype"])),)


# -- places ------------------------------------------------------------------------------------------------------


def alloc(frame: Frame, op: Op) -> None:
    value = op.result
    if space(value) == "arena" and op.attrs["offset"] is not None:
        begin, length = frame.number(op.attrs["offset"]), frame.number(value.type.bytes)
        room = frame.arena[begin : begin + length].view(numpy_dtype(value.type.dtype))
        frame.define(value, room.reshape(frame.shape(value.type)))
        return
    array = frame.fresh(value)
    if space(value) == "output":
        frame.outputs[op.attrs["offset"]] = array


def view(frame: Frame, op: Op) -> None:
    """A window of the operand's memory; NumPy refuses one that leaves it."""
    root, begin = frame.roots[op.operands[0]]
    value, dtype = op.result, numpy_dtype(op.result.type.dtype)
    if dtype != root.dtype:  # parts of complex numbers, or what they are parts of
        begin, root = begin * root.dtype.itemsize // dtype.itemsize, root.view(dtype)
    step = dtype.itemsize
    begin += frame.number(op.attrs["offset"])
    shape = frame.shape(value.type)
    strides = [step * frame.number(s) for s in value.type.strides]
    offset = 0 if 0 in shape else begin * step
    frame.env[value] = np.ndarray(shape, root.dtype, root.data, offset, strides)
    frame.roots[value] = root, begin


# -- checks, and what runs outside -------------------------------------------------------------------------------


def bind(frame: Frame, op: Op, reads: list[Array]) -> Sequence[Any]:
    value = int(reads[0])
    if value < 0:
        raise ValueError(f"a size is negative: {op.attrs['size']} = {value}")
    frame.sizes[str(op.attrs["size"])] = value
    return ()


def call(frame: Frame, op: Op, reads: list[Array]) -> Sequence[Any]:
    """Copies in; a list with one array for each result, of the declared dtype and shape, out."""
    name, function, types = op.attrs["name"], op.attrs["function"], op.attrs["types"]
    if function is None:
        raise NotImplementedError(f"{name} is a Python function, which the text form does not carry")
    results = frame.python(name, function, [r.copy() for r in reads])
    if not isinstance(results, list | tuple) or len(results) != len(types):
        raise TypeError(f"{name}: expected a list of {len(types)} results, got {results!r}")
    made = [np.array(r) for r in results]
    for number, (array, t) in enumerate(zip(made, types)):
        shape = frame.shape(t)
        if array.dtype != numpy_dtype(t.dtype):
            raise TypeError(
                f"{name}: result {number} is of dtype {array.dtype}, wanted {numpy_dtype(t.dtype)}"
            )
        if array.shape != shape:
            raise ValueError(f"{name}: result {number} has the shape {array.shape}, wanted {shape}")
    return made


Handler = Callable[[Frame, Op, list[Array]], Sequence[Any]]
HANDLERS: dict[str, Handler] = {
    "bind": bind,
    "call": call,
    "conv": product,
    "conv_input": product,
    "copy": lambda frame, op, reads: reads,
    "for": loop,
    "fuse": fuse,
    "ifelse": ifelse,
    "iota": iota,
    "matmul": product,
    "matmul_widening": product,
    "scan": scan,
}
PLACES: dict[str, Callable[[Frame, Op], None]] = {"alloc": alloc, "view": view}


# -- arguments ---------------------------------------------------------------------------------------------------


def space(value: Value) -> str:
    return value.type.place.space if value.type.place is not None else ""


def as_argument(param: Value, given: Any) -> Array:
    """`given` as an array of the parameter's dtype and rank; memory that is written must be the caller's own."""
    array = np.asarray(given)
    wanted = numpy_dtype(param.type.dtype)
    if array.dtype != wanted or array.ndim != param.type.rank:
        raise TypeError(
            f"argument %{param.name} is {param.type.value}, got {array.dtype} of shape {array.shape}"
        )
    if space(param) == "shared" and not (array is given and array.flags.c_contiguous):
        raise TypeError(f"argument %{param.name} is written in place, so it must be a C-contiguous array")
    return array


def bind_sizes(params: Sequence[Value], arrays: Sequence[Array]) -> dict[str, int]:
    """What each size name stands for; ValueError names the argument whose shape does not agree."""
    known: dict[str, int] = {}
    source: dict[str, str] = {}
    axes = [(p, k, s, a.shape[k]) for p, a in zip(params, arrays) for k, s in enumerate(p.type.shape)]
    for p, k, size, got in axes:
        name = size.plain if isinstance(size, Expr) else None
        if name is not None and name not in known:
            known[name], source[name] = got, f"axis {k} of %{p.name}"
    for _, _, size, got in axes:
        solve(size, got, known)
    for p, k, size, got in axes:
        missing = sorted(dims.names_of(size) - known.keys())
        if missing:
            raise ValueError(
                f"the size {missing[0]} cannot be told from axis {k} of argument %{p.name}, {size}"
            )
        want = dims.evaluate(size, known)
        if got != want:
            why = ", ".join(
                f"{n} = {known[n]} by {source[n]}" for n in sorted(dims.names_of(size)) if n in source
            )
            because = f" ({size}: {why})" if why else ""
            raise ValueError(f"axis {k} of argument %{p.name} must be {want}{because}, got {got}")
    return known


def solve(size: Size, value: int, known: dict[str, int]) -> None:
    """Finds the one unknown name of `c*name + rest`."""
    missing = dims.names_of(size) - known.keys()
    if len(missing) != 1:
        return
    (name,) = missing
    rest = dims.substitute(size, {**known, name: 0})
    step = dims.sub(dims.substitute(size, {**known, name: 1}), rest)
    if isinstance(rest, int) and isinstance(step, int) and step and (value - rest) % step == 0:
        known[name] = (value - rest) // step


def rounded(array: Array, type: Type) -> Array:
    """What the type can hold of an array, which of bfloat16 is float32."""
    return arrays.rounded(array) if type.dtype == "bf16" else array
