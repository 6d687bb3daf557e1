"""Rows that hold blocks, and calls of Python.  Their meaning lies in the interpreter, so they have no `ref`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tcc.ir.core import Attrs, Block
from tcc.ir.dims import Size
from tcc.ir.ops.rules import listed, want_blocks, want_size
from tcc.ir.optable import REQUIRED, OpDef, define
from tcc.ir.types import Type

FOLDS = ("", "sum", "prod", "max", "min", "any", "all")


def yielded(block: Block) -> list[Type]:
    return [v.type.value for v in block.yields]


def want_types(row: str, what: str, got: Sequence[Type], wanted: Sequence[Type]) -> None:
    """Equal types; sizes that differ are reported as such."""
    if list(got) == list(wanted):
        return
    if len(got) != len(wanted) or any(a.dtype != b.dtype or a.rank != b.rank for a, b in zip(got, wanted)):
        raise TypeError(f"{row}: {what} must be {listed(wanted)}, got {listed(got)}")
    for i, (have, want) in enumerate(zip(got, wanted)):
        for axis, (left, right) in enumerate(zip(have.shape, want.shape)):
            want_size(row, f"axis {axis} of number {i} of {what}", left, right)


def want_params(row: str, block: Block, wanted: Sequence[Type]) -> None:
    want_types(row, "the block's parameters", [p.type.value for p in block.params], wanted)


define(
    OpDef(
        "yield",
        "*xs",
        lambda types, attrs, blocks: [],
        doc="Ends a block and hands out its results.",
        pure=False,
    )
)

# -- scan ------------------------------------------------------------------------------------------------------------


def scan_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_blocks("scan", blocks, 1)
    (body,) = blocks
    seqs, carries, length = attrs["seqs"], attrs["carries"], attrs["length"]
    if len(types) != seqs + carries:
        raise TypeError(f"scan: {seqs} sequences and {carries} carries, got {len(types)} operands")
    for i, t in enumerate(types[:seqs]):
        if t.rank == 0:
            raise TypeError(f"scan: sequence {i} must have an axis to walk, got {t}")
        want_size("scan", f"the length of sequence {i}", t.shape[0], length)
    states = [t.value for t in types[seqs:]]
    want_params("scan", body, [*(t.with_shape(*t.shape[1:]) for t in types[:seqs]), *states])
    out = yielded(body)
    want_types("scan", "the next carries", out[:carries], states)
    stacks = out[carries:]
    if attrs["until"]:
        want_types("scan", "the condition to end", stacks[-1:], [Type("bool")])
        stacks = stacks[:-1]
    counted = [Type("i64")] if attrs["until"] else []
    return [*states, *(t.with_shape(length, *t.shape) for t in stacks), *counted]


define(
    OpDef(
        "scan",
        "*xs",
        scan_type,
        None,
        {"seqs": 0, "carries": 0, "length": REQUIRED, "reverse": False, "until": False},
        doc="A loop: `seqs` sequences walked along axis 0, then `carries` initial states.  The block takes one element "
        "of each sequence and the states, and yields the next states and what to stack; the results are the last states "
        "and the stacks [length, ...].  The block may read any outer value.  With `reverse` the steps go from the last "
        "element to the first, and each stacks at its own position.  With `until` the last value yielded is a bool that ends "
        "the loop after its step, and the last result the number of steps made, beyond which stacks are zero.",
        kernel=True,
        blocks=1,
    )
)

# -- ifelse ----------------------------------------------------------------------------------------------------------


def ifelse_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_blocks("ifelse", blocks, 2)
    if types[0].value != Type("bool"):
        raise TypeError(f"ifelse: operand c must be bool[], got {types[0]}")
    for block in blocks:
        want_params("ifelse", block, [])
    then, otherwise = map(yielded, blocks)
    want_types("ifelse", "what the second block yields", otherwise, then)
    return then


define(
    OpDef(
        "ifelse",
        "c",
        ifelse_type,
        doc="What the first block yields if c holds, else what the second yields; only one of them runs.",
        kernel=True,
        blocks=2,
    )
)

# -- call ------------------------------------------------------------------------------------------------------------


class Called:
    """What may be known of the function that a `call` runs, beyond that it takes arrays and returns a list of them."""

    @property
    def op(self) -> Any:
        """The user's op, whose work it does."""
        return None

    @property
    def want(self) -> Callable[[Sequence[Type]], None] | None:
        """The rule of its operands' sizes; SizeMismatch."""
        return None

    @property
    def kernels(self) -> Callable[..., Any] | None:
        """What makes a GPU's kernels for operands and results of some types."""
        return None

    @property
    def on_device(self) -> Callable[..., bool] | None:
        """What a device is asked first, with addresses and arrays that lie there."""
        return None


NOTHING = Called()


def called(function: Any) -> Called:
    return function if isinstance(function, Called) else NOTHING


def call_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want = called(attrs["function"]).want
    if want is not None:
        want(types)
    return list(attrs["types"])


define(
    OpDef(
        "call",
        "*xs",
        call_type,
        None,
        {"name": REQUIRED, "types": REQUIRED, "function": None},
        doc="A Python function on the calling thread: arrays in, arrays of `types` out.  The text form keeps its name "
        "alone, and what is read from text cannot run it.",
        kernel=True,
        host=True,
        pure=False,
        fails=True,
    )
)

# -- fuse ------------------------------------------------------------------------------------------------------------


def axis_of(letter: str) -> int:
    return ord(letter) - ord("a")


def want_map(row: str, operand: str, t: Type, letters: str, dims: Sequence[Size]) -> None:
    """`letters` names the iteration axis of each axis of `t`."""
    axes = [axis_of(c) for c in letters]
    if len(axes) != t.rank or len(set(axes)) < len(axes) or not all(0 <= a < len(dims) for a in axes):
        raise TypeError(f"{row}: the map {letters!r} of {operand} does not fit {t} over {len(dims)} axes")
    for axis, a in enumerate(axes):
        want_size(row, f"axis {axis} of {operand}", t.shape[axis], dims[a])


def epilogue_types(
    row: str, result: Type, extra: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]
) -> list[Type]:
    """Of an op that makes `result`, to whose elements its block, if it has one, is applied; `maps` say where it reads extras."""
    if not blocks:
        if extra:
            raise TypeError(f"{row}: without a block takes 2 operands, got {len(extra)} more")
        return [result]
    maps = attrs["maps"]
    if len(blocks) != 1 or len(maps) != len(extra):
        raise TypeError(f"{row}: needs one block and a map for each further operand, got {list(maps)}")
    for i, (t, letters) in enumerate(zip(extra, maps)):
        want_map(row, f"extra[{i}]", t, letters, result.shape)
    want_params(row, blocks[0], [Type(result.dtype), *(Type(t.dtype) for t in extra)])
    out = yielded(blocks[0])
    if any(t.rank for t in out):
        raise TypeError(f"{row}: the block must yield scalars")
    return [Type(t.dtype, result.shape) for t in out]


def fuse_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_blocks("fuse", blocks, 1)
    (body,) = blocks
    maps, dims, out, row = attrs["maps"], attrs["dims"], attrs["out"], attrs["row"]
    reduce = attrs["reduce"] or [""] * len(out)
    if len(maps) != len(types):
        raise TypeError(f"fuse: needs a map for each of its {len(types)} operands, got {list(maps)}")
    if row and not dims:
        raise TypeError("fuse: rows need an axis")
    last = chr(ord("a") + len(dims) - 1) if row else ""
    for i, (t, letters) in enumerate(zip(types, maps)):
        want_map("fuse", f"xs[{i}]", t, letters, dims)
    inner = [Type(t.dtype, (dims[-1],) if row and last in m else ()) for t, m in zip(types, maps)]
    want_params("fuse", body, inner)
    results = yielded(body)
    if not len(results) == len(out) == len(reduce):
        raise TypeError(
            f"fuse: yields {len(results)} values for {len(out)} results and {len(reduce)} reductions"
        )
    return [
        _fused_result(i, t, letters, how, dims, row)
        for i, (t, letters, how) in enumerate(zip(results, out, reduce))
    ]


def _fused_result(i: int, t: Type, letters: str, how: str, dims: Sequence[Size], row: int) -> Type:
    axes = [axis_of(c) for c in letters]
    if len(set(axes)) < len(axes) or not all(0 <= a < len(dims) for a in axes) or how not in FOLDS:
        raise TypeError(f"fuse: result {i} has the axes {letters!r} and the reduction {how!r}")
    if t.shape not in ((), (dims[-1],) if row else ()):
        raise TypeError(f"fuse: the block yields {t} as result {i}, wanted a scalar{' or a row' * row}")
    walked = set(range(len(dims) if t.rank or not row else len(dims) - 1))
    if not walked.issuperset(axes) or (walked != set(axes)) != bool(how):
        raise TypeError(f"fuse: result {i} of axes {letters!r}, from {t}, cannot have the reduction {how!r}")
    return Type(t.dtype, tuple(dims[a] for a in axes))


define(
    OpDef(
        "fuse",
        "*xs",
        fuse_type,
        None,
        {"maps": REQUIRED, "dims": REQUIRED, "row": 0, "out": REQUIRED, "reduce": ()},
        doc="One kernel over the iteration axes a, b, c... of sizes `dims`.  `maps` gives for each operand the iteration "
        "axis of each of its axes, `out` the same for each result; a result that lacks axes is reduced over them as "
        "`reduce` says.  The block computes one point, or with `row = 1` one row along the last axis.",
        kernel=True,
        blocks=1,
    )
)
