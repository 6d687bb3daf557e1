"""Rows of the placed level, where values live at places in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tcc.ir.core import Attrs, Block
from tcc.ir.ops.rules import want_blocks
from tcc.ir.optable import REQUIRED, OpDef, Sample, define
from tcc.ir.types import REAL_OF, Type


def place_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    t: Type = attrs["type"]
    if t.place is None:
        raise TypeError(f"a place must have a place's type, written &{t} @arena, got {t}")
    return [t]


def view_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    (t,) = place_type(types, attrs, blocks)
    whole, part = sorted((t.dtype, types[0].dtype), key=lambda d: d not in REAL_OF)
    if t.dtype != types[0].dtype and REAL_OF.get(whole) != part:
        raise TypeError(f"view: cannot see {types[0]} as {t}")
    return [t]


define(
    OpDef(
        "alloc",
        "",
        place_type,
        None,
        {"type": REQUIRED, "offset": None, "arena": 0},
        doc="New memory of `type`; planning sets `offset`, the bytes before it in its space, and for memory whose size is "
        "known late, which of the late arenas it lies in.",
        pure=False,
    )
)

define(
    OpDef(
        "place",
        "",
        place_type,
        None,
        {"type": REQUIRED, "name": ""},
        doc="Memory that exists before the function runs, found by `name`.",
        pure=False,
    )
)

define(
    OpDef(
        "view",
        "p",
        view_type,
        None,
        {"type": REQUIRED, "offset": 0},
        doc="A strided window of p that begins `offset` elements after it.",
        view=0,
    )
)

define(
    OpDef(
        "copy",
        "x",
        lambda types, attrs, blocks: [types[0].value],
        np.copy,
        doc="x at another place.",
        grad=lambda b, op, g: [g[0]],
        rop=lambda b, op, t: [t[0]],
        kernel=True,
        samples=(Sample(("f32[3,4]",)), Sample(("i64[]",))),
    )
)


def for_type(types: Sequence[Type], attrs: Attrs, blocks: Sequence[Block]) -> list[Type]:
    want_blocks("for", blocks, 1)
    index = attrs["index"]
    if isinstance(index, int) or index.plain is None:
        raise TypeError(f"for: the index must be a name, got {index}")
    if [t.value for t in types] not in ([], [Type("bool")]):
        raise TypeError(f"for: takes at most one bool[], got {types[0]}")
    if blocks[0].params or blocks[0].yields:
        raise TypeError("for: the block takes and yields nothing")
    return []


define(
    OpDef(
        "for",
        "*stop",
        for_type,
        None,
        {"index": REQUIRED, "length": REQUIRED},
        doc="A native loop: the block runs for each `index`, a size name, from 0 to length - 1, or until `stop` holds after "
        "it.",
        kernel=True,
        pure=False,
        blocks=1,
    )
)
