"""Writes a group as one `fuse` op: a body of scalars, or of rows in a row kernel."""

from __future__ import annotations

from tcc.ir.builder import Builder
from tcc.ir.core import Attrs, Block, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.passes.access import Access, Axes, identity
from tcc.passes.groups import REDUCTIONS, Finished, Group, accesses, escapes, is_whole, space

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write(group: Group, block: Block, before: Op) -> Op:
    """The `fuse` op of `group`, or its product or convolution with an epilogue, put before `before`; members' results that are read
    outside become its results."""
    nest = _Nest(group)
    if group.finished is not None:
        result = group.finished.result
        nest.values[result] = nest.body.add_param(Type(result.type.dtype), "acc")
    for op in group.ops:
        if group.finished is None or op not in group.finished.ops:
            nest.add(op)
    return nest.finish(block, before)


def letters(axes: Axes) -> str:
    """Axes of the iteration space as a `maps` entry, which leaves out those of size 1."""
    return "".join(LETTERS[a] for a in axes if a is not None)


def without_ones(a: Access, b: Builder) -> Value:
    """The operand with the axes dropped that its map leaves out."""
    kept = [k for k, axis in enumerate(a.axes) if axis is not None]
    view: Value = a.value if len(kept) == a.value.type.rank else b.dimshuffle(a.value, order=kept)
    return view


class _Nest:
    def __init__(self, group: Group) -> None:
        assert group.dims is not None
        self.group, self.dims = group, group.dims
        self.row: Size | None = group.dims[-1] if group.row else None
        self.body = Block()
        self.b = Builder(self.body)
        self.params: dict[Access, Value] = {}  # in the order of the operands
        self.values: dict[Value, Value] = {}  # a member's result -> what the body computes for it
        self.wide: dict[Value, Value] = {}  # one number a row -> the row filled with it
        self.generated: dict[tuple[Value, Axes, bool], Value] = {}
        self.parts: dict[tuple[Value, str], Value] = {}

    def add(self, op: Op) -> None:
        whole = len(space(op)) == len(self.dims)
        self.b.loc = op.loc
        inputs = [self.read(a, whole and not (op.name == "gather" and k)) for k, a in enumerate(accesses(op))]
        if op.name == "gather":
            made = self.b.gather(*inputs, axes=[0])
        elif op.name in REDUCTIONS:
            made = self.reduction(op, inputs[0])
        else:
            made = self.b.op(op.name, *inputs, attrs=op.attrs).result
        made.name = made.name or op.result.name
        self.values[op.result] = made

    def reduction(self, op: Op, element: Value) -> Value:
        """Along a row kernel's rows the number; else the element, in the result's type, for the nest to reduce."""
        if self.along_row(op):
            extra = {"dtype": op.attrs["dtype"]} if "dtype" in op.attrs else {}
            made: Value = self.b.op(op.name, element, attrs={"axes": [0], **extra}).result
            return made
        dtype = op.result.type.dtype
        return element if element.type.dtype == dtype else self.b.cast(element, dtype=dtype)

    def along_row(self, op: Op) -> bool:
        """Whether a reduction of a row kernel gives a number for each row, not a total of the columns."""
        return self.row is not None and list(op.attrs["axes"]) == [len(self.dims) - 1]

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, a: Access, whole: bool) -> Value:
        """The value of an access; filled into a row where a row kernel's op works on rows (`whole`)."""
        if a.part:
            key = self.read(a.whole, whole), a.part
            if key not in self.parts:
                self.parts[key] = self.b.op(a.part, key[0]).result
            return self.parts[key]
        if a.generated:
            return self.generate(a, whole)
        value = self.values.get(a.value) or self.param(a)
        if self.row is None or not whole or value.type.shape:
            return value
        if value not in self.wide:
            self.wide[value] = self.b.broadcast(value, shape=[self.row])
        return self.wide[value]

    def param(self, a: Access) -> Value:
        if a not in self.params:
            shape = (self.row,) if self.row is not None and len(self.dims) - 1 in a.axes else ()
            self.params[a] = self.body.add_param(Type(a.value.type.dtype, shape), a.value.name)
        return self.params[a]

    def generate(self, a: Access, whole: bool) -> Value:
        key = (a.value, a.axes, whole)
        if key not in self.generated:
            self.generated[key] = self.generate_new(a, whole)
        return self.generated[key]

    def generate_new(self, a: Access, whole: bool) -> Value:
        source, dtype = a.value.op, a.value.type.dtype
        assert source is not None
        shape = (self.row,) if self.row is not None and whole else ()
        if source.name == "const":
            return self.b.const(source.attrs["value"], Type(dtype, shape))
        if source.name == "size":
            made: Value = self.b.op("size", attrs=source.attrs).result
        else:
            axis = a.axes[int(source.attrs["axis"])]
            if axis is None:
                return self.b.const(0, Type(dtype, shape))
            if shape and axis == len(self.dims) - 1:
                row: Value = self.b.iota(shape=list(shape), axis=0, dtype=dtype)
                return row
            made = self.b.iota(shape=[], axis=axis, dtype=dtype)
        return self.b.broadcast(made, shape=list(shape)) if shape else made

    # -- the op ----------------------------------------------------------------------------------------------------

    def finish(self, block: Block, before: Op) -> Op:
        results = [op.result for op in self.group.ops if escapes(op.result, self.group)]
        self.b.op("yield", *(self.values[r] for r in results))
        outer = Builder(block, before, loc=list(self.group.ops)[-1].loc)
        finished = self.group.finished
        read = [self.behind(finished, a, outer) for a in self.params] if finished else list(self.params)
        operands = [without_ones(a, outer) for a in read]
        attrs: Attrs = {"maps": [letters(a.axes) for a in read]}
        if finished is not None:
            product = finished.product
            attrs = {**product.attrs, **attrs}
            made = outer.op(product.name, *product.operands, *operands, attrs=attrs, blocks=[self.body])
        else:
            attrs |= {"dims": list(self.dims), "row": int(self.row is not None)}
            attrs |= {"out": [self.out(r) for r in results], "reduce": [self.how(r) for r in results]}
            made = outer.op("fuse", *operands, attrs=attrs, blocks=[self.body])
        for old, new in zip(results, made.results):
            seen = new if new.type == old.type else outer.reshape(new, shape=list(old.type.shape))
            assert old.type == seen.type, f"{made.name} makes {seen.type} of {old!r}"
            old.replace_by(seen)
        return made

    def behind(self, finished: Finished, a: Access, b: Builder) -> Access:
        """What is read where the product has other rows than the nest: all of it, or for each row the same."""
        if not finished.reshaped(self.dims):
            return a
        shape = finished.product.result.type.shape
        if not is_whole(a, self.dims):
            axes = (len(shape) - 1 if axis == len(self.dims) - 1 else None for axis in a.axes)
            return Access(a.value, tuple(axes))
        same = a.value.type.shape == shape
        return Access(a.value if same else b.reshape(a.value, shape=list(shape)), identity(len(shape)))

    def out(self, result: Value) -> str:
        op = result.op
        assert op is not None
        if op.name in REDUCTIONS:
            return "".join(LETTERS[k] for k in range(len(self.dims)) if k not in op.attrs["axes"])
        return LETTERS[: result.type.rank]

    def how(self, result: Value) -> str:
        op = result.op
        assert op is not None
        reduces = op.name in REDUCTIONS and not self.along_row(op) and len(op.attrs["axes"]) > 0
        return op.name if reduces else ""
