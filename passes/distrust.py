"""Text that comes from elsewhere: the checks that whoever wrote it should have written.

Types say what is certain of sizes; what they leave open (a window within its array, an index, a reshape whose totals are
products of names, a size that may come out negative) is checked by ops of their own, which the frontend writes.  Here they
are put in wherever they are missing, so that compiled code stays within its memory, whatever the text says.
"""

from __future__ import annotations

from collections.abc import Iterator

from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.verify import VerifyError

BLOCKS = frozenset({"scan", "ifelse"})  # the ops of the values' level that have any
LATER = frozenset(
    {"fuse", "alloc", "place", "view", "copy", "for", "call"}
)  # made by passes, or by a Python program
WINDOWS = frozenset({"slice", "insert"})


def distrust(func: Func) -> None:
    """Adds the checks to a verified function.  VerifyError for what is not of the values' level, on which others rest."""
    for op in func.body.walk():
        odd = (
            op.name in LATER
            or op.into
            or op.attrs.get("accumulate")
            or op.attrs.get("checked")
            or (op.blocks and op.name not in BLOCKS)
        )
        if odd or any(v.type.place for v in (*op.operands, *op.results)):
            raise VerifyError(func, op, "is not of the values' level, and only passes may make it")
    for p in func.body.params:
        if p.type.place is not None:
            raise VerifyError(func, None, f"%{p.name} is a place, and only passes may make one")
    _Checks(func).block(func.body, frozenset())


class _Checks:
    def __init__(self, func: Func) -> None:
        self.func = func
        self.counts: dict[Size, Value] = {}  # a size that `bind` named -> the number behind it

    def block(self, block: Block, known: frozenset[object]) -> None:
        """`known` are the facts that were checked before the block begins."""
        for op in list(block.ops):
            if op.name == "check_index":
                known |= {(root(op.operands[0]), op.attrs["bound"])}
            elif op.name == "check_size":
                known |= {frozenset((op.attrs["left"], op.attrs["right"]))}
            elif op.name == "bind":
                self.counts[op.attrs["size"]] = op.operands[0]
            for inner in op.blocks:
                for p in inner.params:
                    known = self.equal(op, known, [(dims.maximum(s, 0), s) for s in p.type.shape])
            known = self.equal(op, known, needs(op))
            known = self.indices(op, known)
            self.positions(op)
            for inner in op.blocks:
                self.block(inner, known)

    def equal(self, op: Op, known: frozenset[object], pairs: list[tuple[Size, Size]]) -> frozenset[object]:
        for left, right in pairs:
            fact = frozenset((left, right))
            if left == right or fact in known:
                continue
            words = {"left": left, "right": right, "message": f"{op.name}: sizes that do not fit"}
            Builder(self.block_of(op), op, op.loc).op("check_size", attrs=words)
            known |= {fact}
        return known

    def indices(self, op: Op, known: frozenset[object]) -> frozenset[object]:
        first = {"gather": 1, "scatter": 2}.get(op.name)
        if first is None:
            return known
        for axis, index in zip(op.attrs["axes"], op.operands[first:]):
            bound = op.operands[0].type.shape[axis]
            if (root(index), bound) in known:
                continue
            words = {"bound": bound, "axis": int(axis)}
            Builder(self.block_of(op), op, op.loc).op("check_index", index, attrs=words)
            known |= {(root(index), bound)}
        return known

    def positions(self, op: Op) -> None:
        """The count of what holds is counted again unless it was counted just so."""
        if op.name != "positions":
            return
        (mask,), count = op.operands, op.attrs["count"]
        number = self.counts.get(count)
        if number is not None and sums(number) is mask:
            return
        b = Builder(self.block_of(op), op, op.loc)
        whole = b.op("cast", mask, attrs={"dtype": "i64"}).result
        total = b.op("sum", whole, attrs={"axes": tuple(range(mask.type.rank)), "dtype": "i64"}).result
        counted = dims.name(f"counted_by_positions_{len(self.counts)}")
        self.counts[counted] = total
        b.op("bind", total, attrs={"size": counted})
        words = {"left": counted, "right": count, "message": "positions: another count"}
        b.op("check_size", attrs=words)

    def block_of(self, op: Op) -> Block:
        assert op.parent is not None
        return op.parent


def needs(op: Op) -> list[tuple[Size, Size]]:
    """Pairs of sizes that must be equal where the op runs."""
    found = [(dims.maximum(s, 0), s) for r in op.results for s in r.type.shape]
    found += [
        (dims.maximum(s, 0), s)
        for s in (op.attrs.get("length"), op.attrs.get("k"))
        if op.name in ("scan", "argtopk") and s is not None
    ]
    if op.name in WINDOWS:
        found += within(op)
    elif op.name == "refine":
        found += zip(op.operands[0].type.shape, op.result.type.shape)
    elif op.name == "reshape":
        found.append((op.operands[0].type.size, op.result.type.size))
    elif op.name == "argtopk":
        found.append(
            (dims.minimum(op.attrs["k"], op.operands[0].type.shape[op.attrs["axis"]]), op.attrs["k"])
        )
    return found


def within(op: Op) -> Iterator[tuple[Size, Size]]:
    """A window of no elements may begin anywhere; of another the first and the last lie in the array."""
    sizes = op.operands[0].type.shape
    for n, start, count, step in zip(sizes, op.attrs["start"], op.attrs["size"], op.attrs["step"]):
        yield dims.maximum(count, 0), count
        some = dims.minimum(count, 1)
        last = dims.add(start, dims.mul(step, dims.sub(count, 1)))
        for end in (start, last):
            yield dims.minimum(dims.mul(end, some), 0), 0
            yield dims.maximum(dims.mul(dims.add(dims.sub(end, n), 1), some), 0), 0


def root(index: Value) -> Value:
    """What an index was before casts to wider integers."""
    while index.op is not None and index.op.name == "cast" and index.op.operands[0].type.dtype[0] in "iu":
        wider = index.type.dtype == "i64" and index.op.operands[0].type.dtype != "u64"
        if not wider:
            return index
        index = index.op.operands[0]
    return index


def sums(number: Value) -> Value | None:
    """The mask whose elements a number counts."""
    op = number.op
    if op is None or op.name != "sum" or number.type.rank != 0:
        return None
    cast = op.operands[0].op
    return (
        cast.operands[0]
        if cast is not None and cast.name == "cast" and cast.operands[0].type.dtype == "bool"
        else None
    )
