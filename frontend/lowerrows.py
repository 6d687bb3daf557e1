"""Rows of the frontend's graph that are sizes, checks or other ops in the IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tcc import lowerflow
from tcc.graph import Apply
from tcc.ir import dims
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.locations import place
from tcc.printing import label
from tcc.user_op import Op, Probed
from tcc.variable import TensorConstant, Variable

if TYPE_CHECKING:
    from tcc.lower import Lowering


def shape_of(lowering: Lowering, node: Apply) -> None:
    axis = node.attrs["axis"]
    x = lowering.value(node.operands[0])
    lowering.exact[node.result] = size = lowering.sizes.resolve(x.type.shape[axis])
    lowering.scopes[-1].bound["least", size] = size  # something has that size


def broadcast(lowering: Lowering, node: Apply) -> None:
    """A number stretched to a shape is one constant of that shape."""
    (x,), shape = node.operands, tuple(lowering.plain(node.attrs["shape"]))
    lowering.not_negative(*shape)
    if isinstance(x, TensorConstant) and x.data.size == 1:
        made = lowering.builder.const(
            x.data.item(), Type(x.type.ir, tuple(map(lowering.sizes.resolve, shape)))
        )
    else:
        made = lowering.builder.broadcast(lowering.value(x), shape=shape)
    lowering.define(node, [made])


def reshape(lowering: Lowering, node: Apply) -> None:
    """Totals that are sizes are made equal; where they cannot be told to be, running tells."""
    x, shape = lowering.value(node.operands[0]), tuple(lowering.plain(node.attrs["shape"]))
    lowering.not_negative(*shape)
    have, want = lowering.sizes.resolve(x.type.size), lowering.sizes.resolve(dims.product(shape))
    if have != want:
        lowering.sizes.merge(have, want, lowering.builder.reason())
    result = lowering.builder.reshape(x, shape=shape)
    have, want = lowering.sizes.resolve(x.type.size), lowering.sizes.resolve(result.type.size)
    if have != want:
        message = f"{label(node)}: total size of new array must be unchanged"
        lowering.check_size(have, want, message, before=result.owner)
    lowering.define(node, [result])


def extreme(lowering: Lowering, node: Apply) -> None:
    """The largest or smallest element, or its position; where there is none, running tells."""
    x, attrs = lowering.value(node.operands[0]), node.attrs
    axes = attrs["axes"] if "axes" in attrs else (attrs["axis"],)
    count = dims.product([lowering.sizes.resolve(x.type.shape[a]) for a in axes])
    least = dims.minimum(count, 1)
    if least != 1:
        message = f"{label(node)}: too few elements along its axes"
        lowering.check_size(least, 1, message)
    lowering.define(node, lowering.builder.op(node.name, x, attrs=attrs).results)


def index(lowering: Lowering, node: Apply) -> None:
    """A position counted from the start; one that cannot be told to be on the axis is checked."""
    (i,), bound, axis = node.operands, lowering.size(node.attrs["bound"]), node.attrs["axis"]
    exact = lowering.exact_size(i)
    n = lowering.sizes.resolve(bound)
    if isinstance(exact, int):
        at = exact if exact >= 0 else dims.add(n, exact)
        if isinstance(n, int):
            if not -n <= exact < n:
                raise IndexError(
                    f"index {exact} is out of bounds for axis {axis} with size {n}, written at {place(node.loc)}"
                )
        else:
            value = lowering.builder.size_value(exact)
            lowering.builder.op("check_index", value, attrs={"bound": n, "axis": axis})
        lowering.exact[node.result] = at
        return
    value = lowering.value(i)
    if value.type.dtype != "i64":
        value = lowering.builder.cast(value, dtype="i64")
    lowering.builder.op("check_index", value, attrs={"bound": n, "axis": axis})
    b = lowering.builder
    lowering.define(node, [b.where(b.lt(value, 0), b.add(value, b.size_value(n)), value)])
    lowering.keys[node.result] = ("index", lowering.keys.get(i, i), n)


def indices(lowering: Lowering, node: Apply) -> None:
    value = lowering.value(node.operands[0])
    bound = lowering.size(node.attrs["bound"])
    made = node.operands[0].owner
    span: Size | None
    if made is not None and made.name == "positions":
        span = lowering.value(made.operands[0]).type.shape[0]
    else:
        span = value.type.shape[0] if made is not None and made.name == "iota" else None
    whole_range = span is not None and dims.sub(lowering.sizes.resolve(bound), lowering.sizes.resolve(span))
    if not isinstance(whole_range, int) or isinstance(whole_range, bool) or whole_range < 0:
        lowering.builder.op("check_index", value, attrs={"bound": bound, "axis": node.attrs["axis"]})
    lowering.define(node, [value])


def rebroadcast(lowering: Lowering, node: Apply) -> None:
    """A flag that is new says that the size is 1; one that goes says nothing here."""
    value = lowering.value(node.operands[0])
    for axis, flag in enumerate(node.result.type.broadcastable):
        size = lowering.sizes.resolve(value.type.shape[axis])
        if not flag or size == 1:
            continue
        if isinstance(size, int):
            raise ValueError(
                f"{label(node)}: axis {axis} has size {size}, not 1, written at {place(node.loc)}"
            )
        if lowering.sizes.merge(size, 1, f"{label(node)} at {place(node.loc)}"):
            value.type = value.type.substitute(lowering.sizes.known)
            continue
        message = f"{label(node)}: axis {axis} must have size 1"
        lowering.check_size(size, 1, message)
        shape = tuple(1 if k == axis else s for k, s in enumerate(value.type.shape))
        value = lowering.builder.refine(value, type=Type(value.type.dtype, shape))
    lowering.define(node, [value])


def same_size(lowering: Lowering, node: Apply) -> None:
    """A size that must be equal to another."""
    n, other = (lowering.sizes.resolve(lowering.size(v)) for v in (node.operands[0], node.attrs["other"]))
    message = node.attrs["message"]
    if isinstance(n, int) and isinstance(other, int) and n != other:
        raise ValueError(f"{message} ({n} against {other}), written at {place(node.loc)}")
    if n != other and not lowering.sizes.merge(n, other, f"{message}, at {place(node.loc)}"):
        lowering.check_size(n, other, message)
    lowering.exact[node.result] = lowering.sizes.resolve(n)


def argtopk(lowering: Lowering, node: Apply) -> None:
    """It takes at most as many elements as there are."""
    x, k = lowering.value(node.operands[0]), lowering.plain(node.attrs["k"])
    n = x.type.shape[node.attrs["axis"]]
    lowering.at_least(n, k, f"topk: the axis has fewer than {k} elements")
    op = lowering.builder.op("argtopk", x, attrs={**node.attrs, "k": k})
    lowering.define(node, op.results)


def call(lowering: Lowering, node: Apply) -> None:
    """A Python function.  Sizes that only it can tell are asked for first.  Of equal ops of equal inputs one is called."""
    function, name = node.attrs["function"], node.attrs["name"]
    operands = [lowering.value(v) for v in node.operands]
    key = (node.attrs.get("op"), *operands, *(r.type for r in node.results))
    mergeable = isinstance(key[0], Op)
    for scope in lowering.scopes if mergeable else ():
        if key in scope.calls:
            lowering.define(node, scope.calls[key])
            return
    given = iter(node.attrs["sizes"])
    shapes = [[next(given) for _ in r.type.shape] for r in node.results]
    if any(s is None for shape in shapes for s in shape):
        probed = Probed(function)
        axes = [Type("i64")] * sum(map(len, shapes))
        attrs = {"name": f"{name}.sizes", "types": axes, "function": probed.sizes}
        told = iter(lowering.builder.op("call", *operands, attrs=attrs).results)
        shapes, function = [[lowering.bound(next(told)) for _ in shape] for shape in shapes], probed.results
    types = [
        Type(r.type.ir, tuple(lowering.size(s) if isinstance(s, Variable) else s for s in shape))
        for r, shape in zip(node.results, shapes)
    ]
    op = lowering.builder.op("call", *operands, attrs={"name": name, "types": types, "function": function})
    lowering.define(node, op.results)
    if mergeable:
        lowering.scopes[-1].calls[key] = op.results


def conv(lowering: Lowering, node: Apply) -> None:
    """Filters fit into the image with its border at least once."""
    x, w = (lowering.value(v).type.shape for v in node.operands)
    attrs = {key: lowering.plain(value) for key, value in node.attrs.items()}
    result = lowering.builder.conv(*map(lowering.value, node.operands), **attrs)
    for axis, (size, kernel, dilation) in enumerate(zip(x[2:], w[2:], attrs["dilation"])):
        reach = dims.add(dims.mul(dilation, dims.add(kernel, -1)), 1)
        have = dims.add(size, *attrs["pads"][2 * axis : 2 * axis + 2])
        message = f"along axis {axis + 2} the image with its border is smaller than the filters"
        lowering.at_least(have, reach, f"{label(node)}: {message}", before=result.owner)
    lowering.define(node, [result])


def with_grad(lowering: Lowering, node: Apply) -> None:
    """What was differentiated is known by now."""
    lowering.define(node, [lowering.value(v) for v in node.operands[: node.attrs["count"]]])


def steps(lowering: Lowering, node: Apply) -> None:
    """The number of steps; a sequence that is shorter is an error."""
    n = lowering.size(node.operands[0])
    lowering.not_negative(n)
    message = node.attrs.get("message", "Sequence is shorter then the required number of steps")
    for available in map(lowering.size, node.attrs["available"]):
        lowering.at_least(lowering.sizes.resolve(available), n, message)
    lowering.exact[node.result] = n


SPECIAL: dict[str, Callable[[Lowering, Apply], None]] = {
    "argtopk": argtopk,
    "broadcast": broadcast,
    **dict.fromkeys(("argmax", "argmin", "max", "min"), extreme),
    "call": call,
    "conv": conv,
    "with_grad": with_grad,
    "ifelse": lowerflow.ifelse,
    "index": index,
    "indices": indices,
    "rebroadcast": rebroadcast,
    "reshape": reshape,
    "same_size": same_size,
    "scan": lowerflow.scan,
    "shape_of": shape_of,
    "steps": steps,
}
