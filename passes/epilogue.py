"""Elementwise work on a matrix product or a convolution as its own block, done while its elements are still in registers
or the nearest cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tcc.ir.core import Op, Value
from tcc.ir.types import FLOATS
from tcc.passes.access import Access, identity
from tcc.passes.clusters import Clusters
from tcc.passes.groups import REDUCTIONS, Finished, Group, accesses, escapes, is_whole
from tcc.passes.manager import Context

CONVOLUTIONS = frozenset({"conv", "conv_input"})
WITH_EPILOGUE = frozenset({"matmul", "matmul_widening", *CONVOLUTIONS})
CHEAP = 16  # scalar operations of a block that is worth repeating for each vector of a register tile
MATRIX, IMAGES = (2, 3), (3, 4, 5)  # ranks of results
RANKS = {"matmul": MATRIX, "matmul_widening": MATRIX, "conv": IMAGES, "conv_input": IMAGES}


class Carriers(NamedTuple):
    """The products that may carry a block: their rows, and whether a matrix times one column may.

    The CPU's product would call the block for a few elements at a time, and sum otherwise than it does best; a map of its
    own takes whole vectors.  On a GPU that would be one more launch.
    """

    rows: frozenset[str]
    columns: bool


def absorb(clusters: Clusters, products: Carriers, updated: Mapping[Value, Value], ctx: Context) -> None:
    """Joins groups to those of the `products` that they alone read: matrix products and convolutions.

    `updated` maps new values of shared variables to these.  A group that reads the old value stays alone: it works in
    place, where a product's epilogue would need the old value whole while partial sums stand in its memory.  Only a
    plain sum with the old value can be done there: the product starts from it.
    """
    for group in list(clusters.groups):
        if group.dims is None:
            continue
        updates = any(updated.get(op.result) in group.reads for op in group.ops)
        if updates and (len(group.ops) > 1 or group.first.name != "add"):
            continue
        for finished in reversed(_finished(group, clusters, products)):
            if updates and finished.reshaped(group.dims):
                continue
            problem = ""
            for part in _parts(group):
                problem = _problem(finished, part, products.columns)
                if not problem:
                    clusters.absorb(finished, part, group)
                    break
            if not problem:
                break
            ctx.remark(finished.product, f"no epilogue: {problem}")


def _finished(group: Group, clusters: Clusters, products: Carriers) -> list[Finished]:
    """The products that a group reads over its whole space, as they are or with their rows reshaped, as those of an array of
    three axes by a matrix are."""
    assert group.dims is not None
    found: dict[Finished, None] = {}
    for a in (a for read in group.ops.values() for a in read):
        op = a.value.op
        if op is not None and op.name == "reshape":
            op = op.operands[0].op
        if op is None or op.name not in products.rows or op not in clusters.group_of:
            continue
        finished = Finished(op, a.value)
        if a.value.op not in clusters.group_of or len(op.result.type.shape) not in RANKS[op.name]:
            continue
        if not finished.reshaped(group.dims):
            fits = a.axes == identity(len(group.dims))
        else:
            fits = (
                op.name not in CONVOLUTIONS
                and len(group.dims) > op.result.type.rank
                and is_whole(a, group.dims)
            )
            fits = fits and op.result.type.shape[-1:] == group.dims[-1:]
        if fits:
            found[finished] = None
    return list(found)


def _parts(group: Group) -> Iterator[Group]:
    """What of a group could be an epilogue, the most first.  The rest, reductions above all, reads the result from
    memory; of a group with several results it may be what leads to one of them."""
    maps = {op: read for op, read in group.ops.items() if op.name not in REDUCTIONS}
    whole = Group(group.dims, maps, group.level, group.row)
    yield whole
    results = [op for op in maps if escapes(op.result, whole)]
    for result in results if len(results) > 1 else []:
        needed: dict[Op, None] = {}
        work = [result]
        while work:
            op = work.pop()
            needed[op] = None
            work += [a.value.op for a in accesses(op) if a.value.op in maps]
        yield Group(
            group.dims, {op: read for op, read in maps.items() if op in needed}, group.level, group.row
        )


def _problem(finished: Finished, group: Group, columns: bool) -> str:
    """Why `group` cannot be the epilogue of a product, or ""."""
    assert group.dims is not None
    product, result = finished.product, finished.result
    # the CPU adds up in the result's memory, which has to be of the totals' dtype; of these it makes none with a block
    free = product.name == "matmul_widening"
    if product.blocks or not (free or result.type.dtype in FLOATS):
        return f"a product of {result.type} takes none"
    if not columns and product.name == "matmul" and result.type.shape[-1] == 1:
        return "its one column is a vector"
    if product.name == "conv_input" and any(s != 1 for s in product.attrs["strides"]):
        return "its results have gaps"
    if group.row:
        return "what reads it is a row kernel"
    view = result.op if result is not product.result else None
    if escapes(result, group) or (view is not None and len(product.result.uses) > 1):
        return "it has another reader"
    outer = [op.result for op in group.ops if escapes(op.result, group)]
    types = {t.with_dtype(result.type.dtype) if free else t for t in (v.type for v in outer)}
    if len(outer) != 1 or types != {result.type.with_shape(*group.dims)}:
        return f"what reads it makes {', '.join(str(v.type) for v in outer)}"
    for op in group.ops:
        for a in accesses(op):
            if not _readable(a, group, finished):
                return f"it would read {a.value!r} across columns"
    return ""


def _readable(a: Access, group: Group, finished: Finished) -> bool:
    """Whether an epilogue can read it: a constant, or contiguous along the columns; along all pixels of a convolution.
    Behind a reshape, where rows have other numbers, for all rows alike, or as all of them lie."""
    assert group.dims is not None
    rank = len(group.dims)
    inner = tuple(range(2 if finished.product.name in CONVOLUTIONS else rank - 1, rank))
    if a.part:  # the block's values have the product's dtype
        return False
    if a.generated:
        return a.value.op is not None and a.value.op.name == "const"
    reshaped, whole = finished.reshaped(group.dims), is_whole(a, group.dims)
    if a.value is finished.result:
        return whole if reshaped else a.axes == identity(rank)
    if a.value.op in group.ops:
        return True
    if reshaped and any(axis not in (None, rank - 1) and group.dims[axis] != 1 for axis in a.axes):
        return whole and contiguous(a.value, rank)
    if not any(axis in a.axes for axis in inner):
        return True
    return a.axes[-len(inner) :] == inner and contiguous(a.value, len(inner))


def contiguous(value: Value, axes: int = 1) -> bool:
    """Whether neighbours along the last axes are neighbours in memory, however the value is placed."""
    op = value.op
    if op is None or op.defn.view is None:
        return True
    if op.name in ("refine", "reshape"):
        return contiguous(op.operands[0], axes)
    return axes == 1 and op.name == "slice" and op.attrs["step"][-1] == 1 and contiguous(op.operands[0])


def cheap(ops: Iterable[Op]) -> bool:
    """Whether the text of a block of `ops` may be repeated for each vector of a register tile."""
    return scalar_flops(ops) <= CHEAP


def scalar_flops(ops: Iterable[Op]) -> int:
    """Of a point, by operations of a block of scalars."""
    counts = [op.defn.flops(op) for op in ops if op.defn.scalar]
    return sum(n if isinstance(n, int) else CHEAP for n in counts)
