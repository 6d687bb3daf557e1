"""The frontend's graph as IR: one walk, in which equal sizes become one name and size arithmetic becomes sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tcc import lowerflow
from tcc.graph import Apply, toposort
from tcc.ir import dims
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Expr, Size
from tcc.ir.types import Type
from tcc.locations import place
from tcc.lowerrows import SPECIAL
from tcc.printing import label
from tcc.settings import config
from tcc.types import TensorType
from tcc.unify import GraphBuilder, Scope, Sizes, resolve_block
from tcc.variable import SharedVariable, TensorConstant, Variable

LONGEST_SIZE = 1000  # characters; a longer one is computed by the program and gets a name

ARITHMETIC: dict[str, Callable[..., Size]] = {
    "add": dims.add,
    "sub": dims.sub,
    "mul": dims.mul,
    "floordiv": dims.floordiv,
    "mod": dims.mod,
    "minimum": dims.minimum,
    "maximum": dims.maximum,
    "neg": lambda a: dims.mul(-1, a),
}


# Attributes that are sizes of results, and rows whose sizes the frontend has cut to what is there.
SIZES_OF_RESULTS = frozenset({"shape", "size", "count"})
CLIPPED = frozenset({"slice", "insert"})


@dataclass
class Lowered:
    """A function's IR, and the variables behind its parameters: inputs, then one for each shared container.

    `why` says for (parameter, axis) which op and line made that size equal to another.  `bare` is the function for callers
    that have bfloat16, which others give and get as float32.
    """

    func: Func
    inputs: list[Variable]
    shared: list[SharedVariable]
    why: dict[tuple[int, int], str] = field(default_factory=dict)
    device: str | None = None  # as tcc.functions.Recipe has it, and
    stay: frozenset[int] = frozenset()
    bare: Func | None = None


def lower(
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    updates: Sequence[tuple[SharedVariable, Variable]] = (),
    name: str = "f",
) -> Lowered:
    """The function from `inputs` to `outputs`, with its updates of shared variables as further results.

    ValueError if sizes that are known differ, MissingInputError if an input is not given.
    """
    return Lowering(name).run(list(inputs), list(outputs), list(updates))


def carried(bare: Func, inputs: int, outputs: int) -> Func:
    """The function as callers in Python know it: the first `inputs` and `outputs` that are bfloat16, which NumPy lacks, are
    float32 there.  It is `bare` itself where there are none."""
    narrow = [k for k, p in enumerate(bare.body.params[:inputs]) if p.type.dtype == "bf16"]
    wide = [k for k, v in enumerate(bare.body.yields[:outputs]) if v.type.dtype == "bf16"]
    if not narrow and not wide:
        return bare
    func = clone(bare)
    first, last = func.body.first, func.body.last
    assert last is not None
    for k in narrow:
        p = func.body.params[k]
        uses = list(p.uses)
        p.type = p.type.with_dtype("f32")
        value = Builder(func.body, first).cast(p, dtype="bf16")
        for op, i in uses:
            op.set_operand(i, value)
    for k in wide:
        last.set_operand(k, Builder(func.body, last).cast(last.operands[k], dtype="f32"))
    return func


class Lowering:
    """One walk over a graph.  `exact` holds the integer scalars that are sizes, `keys` what equal scalars share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sizes = Sizes()
        self.scopes: list[Scope] = []
        self.exact: dict[Variable, Size] = {}
        self.keys: dict[Variable, Any] = {}
        self.numbers: dict[Any, tuple[str, int]] = {}  # what an integer scalar is made of -> its key
        self.current: Apply | None = None
        self.names: dict[str, int] = {}  # those that are taken, with the last number that was put behind each
        self.fresh = 0
        self.missing: dict[Variable, Apply] = {}

    def run(
        self,
        inputs: list[Variable],
        outputs: list[Variable],
        updates: list[tuple[SharedVariable, Variable]],
    ) -> Lowered:
        results = [*outputs, *(e for _, e in updates)]
        given = set(inputs)
        nodes = toposort(results, stop=lambda v: v in given)
        containers = shared_in(nodes, [*results, *(s for s, _ in updates)])
        body = Block()
        scope = Scope(GraphBuilder(body, self.sizes, lambda: self.current))
        self.scopes.append(scope)
        for number, v in enumerate([*inputs, *(c[0] for c in containers.values())]):
            value = self.param(body, v, number)
            for alias in containers[id(v.container)] if isinstance(v, SharedVariable) else [v]:
                scope.values[alias] = value
        for node in lowerflow.eager(nodes, results):
            self.node(node)
        self.current = None
        scope.builder.loc = ""
        values = [self.value(v) for v in results]
        scope.builder.op("yield", *values)
        resolve_block(body, self.sizes)
        shared = [c[0] for c in containers.values()]
        attrs: dict[str, Any] = {}
        if shared:
            names = {id(s.container): scope.values[s].name for s in shared}
            attrs["shared"] = [names[id(s.container)] for s in shared]
            attrs["updates"] = {names[id(s.container)]: len(outputs) + i for i, (s, _) in enumerate(updates)}
        if self.sizes.why:
            attrs["why"] = {
                f"{body.params[p].name}.{axis}": text for (p, axis), text in self.sizes.why.items()
            }
        if config.tf32:
            attrs["tf32"] = True
        bare = Func(self.name, body, attrs)
        return Lowered(carried(bare, len(inputs), len(outputs)), inputs, shared, self.sizes.why, bare=bare)

    def param(self, body: Block, v: Variable, number: int) -> Value:
        if not isinstance(v.type, TensorType):
            raise TypeError(f"{v} is of {v.type}, which only Python ops can read")
        name = self.unique(v.name or ("shared" if isinstance(v, SharedVariable) else "input"))
        shape: list[Size] = []
        for axis, size in enumerate(v.type.shape):
            if size is not None:
                shape.append(size)
                continue
            text = f"{name}_{axis}"
            while text in self.sizes.entry:
                text += "_"
            self.sizes.entry[text] = (number, axis)
            shape.append(dims.name(text))
        return body.add_param(Type(v.type.ir, tuple(shape)), name)

    def unique(self, name: str) -> str:
        base = re.sub(r"\W", "_", name)
        base = base if base[:1].isalpha() or base[:1] == "_" else f"v{base}"
        text, i = base, self.names.get(base, 0)
        while text in self.names:
            i += 1
            text = f"{base}_{i}"
        self.names[base] = i
        self.names.setdefault(text, 0)
        return text

    # -- values and sizes --------------------------------------------------------------------------------------------

    @property
    def builder(self) -> GraphBuilder:
        return self.scopes[-1].builder

    def find(self, v: Variable) -> Value | None:
        for scope in reversed(self.scopes):
            value = scope.values.get(v)
            if value is not None:
                return value
        return None

    def value(self, v: Variable) -> Value:
        """The value of a variable here."""
        found = self.find(v)
        if found is not None:
            return found
        if v in self.exact:
            made = self.builder.size_value(self.exact[v], v.type.ir)
        elif isinstance(v, TensorConstant):
            data = v.data if v.data.ndim else v.data.item()
            made = self.builder.const(data, Type(v.type.ir, v.data.shape))
            made.name = v.name or ""
        else:
            raise self.not_given(v)
        self.scopes[-1].values[v] = made
        return made

    def not_given(self, v: Variable) -> Exception:
        from tcc.compiling import MissingInputError

        by = f", used to compute {self.current}," if self.current is not None else ""
        return MissingInputError(
            f"An input of the graph{by} was not provided and not given a value: {v} of {v.type}"
            + (f", created at {place(v.loc)}" if v.loc[0] else "")
        )

    def size(self, v: Any) -> Size:
        """A number or integer scalar as a size: an expression over sizes, or a name bound to its value here."""
        if isinstance(v, int):
            return v
        exact = self.exact_size(v)
        if exact is not None:
            return self.sizes.resolve(exact)
        key = self.keys.get(v, v)
        for scope in self.scopes:
            if key in scope.bound:
                return scope.bound[key]
        value = self.value(v)
        if value.type.dtype != "i64":
            value = self.builder.cast(value, dtype="i64")
        self.scopes[-1].bound[key] = name = self.bound(value)
        return name

    def exact_elements(self, v: Variable) -> list[Size] | None:
        """The elements of a vector of sizes such as `x.shape[1:]`; None if some of them are not sizes."""
        node = v.owner
        if isinstance(v, TensorConstant):
            whole = v.type.dtype[:3] in ("int", "uin")
            return [int(n) for n in v.data.ravel()] if whole and v.data.size <= 64 else None
        if node is None or v.type.ndim > 1:
            return None
        if v.type.ndim == 0:
            exact = self.exact_size(v)
            return None if exact is None else [exact]
        if node.name == "dimshuffle" or (node.name == "cast" and node.attrs["dtype"] == "i64"):
            return self.exact_elements(node.operands[0])
        if node.name == "concat":
            parts = [self.exact_elements(x) for x in node.operands]
            return None if None in parts else [size for part in parts if part is not None for size in part]
        if node.name == "slice":
            start, count, step = (node.attrs[k][0] for k in ("start", "size", "step"))
            inner = self.exact_elements(node.operands[0])
            if inner is None or not isinstance(start, int) or not isinstance(count, int):
                return None
            return [inner[start + k * step] for k in range(count)]
        return None

    def exact_size(self, v: Variable) -> Size | None:
        if isinstance(v, TensorConstant):
            return int(v.data) if v.type.dtype[:3] in ("int", "uin") and v.data.ndim == 0 else None
        return self.exact.get(v)

    def note_scalar(self, node: Apply) -> bool:
        """Whether the node's result is a size, or arithmetic on sizes; then it is only made when someone reads it."""
        (v,) = node.results
        parts = tuple(self.keys.get(x, _constant_key(x)) for x in node.operands)
        key = (node.name, parts, tuple((k, str(a)) for k, a in node.attrs.items()), node.extra)
        self.keys[v] = self.numbers.setdefault(key, ("scalar", len(self.numbers)))
        if node.name == "identity" or node.name == "cast" and node.attrs["dtype"] == "i64":
            exact = self.exact_size(node.operands[0])
        elif node.name == "dimshuffle":
            elements = self.exact_elements(node.operands[0])
            exact = elements[0] if elements is not None and len(elements) == 1 else None
        elif node.name == "where" and (chosen := self.chosen(node)) is not None:
            exact = self.exact_size(chosen)
        elif node.name in ARITHMETIC and v.type.dtype == "int64":
            sizes = [self.exact_size(x) for x in node.operands]
            exact = None if None in sizes else ARITHMETIC[node.name](*sizes)
        else:
            return False
        if exact is None or too_long(exact):
            return False
        self.exact[v] = exact
        return True

    def chosen(self, node: Apply) -> Variable | None:
        """The operand that a `where` of scalars takes, if a comparison of sizes decides it, as no size is negative."""
        made = node.operands[0].owner
        if made is None or made.name != "lt":
            return None
        left, right = (self.exact_size(x) for x in made.operands)
        if left is None or right is None:
            return None
        if dims.nonnegative(dims.sub(left, right)):
            return node.operands[2]
        return node.operands[1] if dims.nonnegative(dims.sub(right, dims.add(left, 1))) else None

    # -- nodes -------------------------------------------------------------------------------------------------------

    def node(self, node: Apply) -> None:
        self.current = node
        self.builder.loc = place(node.loc)
        first = node.results[0]
        if len(node.results) == 1 and first.type.dtype[:3] in ("int", "uin") and not first.type.ndim:
            if node.name not in ("shape_of", "steps", "same_size") and self.note_scalar(node):
                return
        special = SPECIAL.get(node.name)
        if special is not None:
            special(self, node)
            return
        attrs = {key: self.plain(value) for key, value in node.attrs.items()}
        if node.name not in CLIPPED:
            self.not_negative(
                *(size for key in SIZES_OF_RESULTS & attrs.keys() for size in as_tuple(attrs[key]))
            )
        op = self.builder.op(node.name, *map(self.value, node.operands), attrs=attrs)
        self.define(node, [self.shortened(r) for r in op.results])

    def shortened(self, value: Value) -> Value:
        """The value under a name for each of its sizes that is too long, as after many convolutions."""
        shape = list(value.type.shape)
        if not any(too_long(s) for s in shape):
            return value
        known = self.scopes[-1].bound
        for axis, size in enumerate(shape):
            if too_long(size):
                if ("long", size) not in known:
                    known["long", size] = self.bound(self.builder.size_value(size))
                shape[axis] = known["long", size]
        made: Value = self.builder.refine(value, type=Type(value.type.dtype, tuple(shape)))
        return made

    def define(self, node: Apply, values: Sequence[Value]) -> None:
        for v, value in zip(node.results, values, strict=True):
            self.scopes[-1].values[v] = value
            if v.name:
                value.name = value.name or re.sub(r"\W", "_", v.name)

    def plain(self, value: Any) -> Any:
        """An attribute's value with sizes for variables."""
        if type(value) in (list, tuple):
            return type(value)(self.size(v) if isinstance(v, Variable) else v for v in value)
        return self.size(value) if isinstance(value, Variable) else value

    def not_negative(self, *sizes: Any) -> None:
        """Checks sizes of results that are given by arithmetic, `2 - x.shape[0]`: those with a name of their own are."""
        for size in map(self.sizes.resolve, sizes):
            if isinstance(size, int) or dims.nonnegative(size):
                continue
            if any(("least", size) in scope.bound for scope in self.scopes):
                continue
            assert self.current is not None
            self.scopes[-1].bound["least", size] = size
            message = f"{label(self.current)}: a size must not be negative"
            least = dims.maximum(size, 0)
            self.check_size(least, size, message)

    def check_size(self, have: Size, want: Size, message: str, before: Op | None = None) -> None:
        """Running checks that the two are equal, in front of `before` or of what follows."""
        attrs = {"left": have, "right": want, "message": message}
        check = self.builder.op("check_size", attrs=attrs)
        if before is not None:
            self.builder.block.move(check, before=before)

    def at_least(self, have: Size, least: Size, message: str, before: Op | None = None) -> None:
        """A size that must not be smaller than another.  ValueError if both are known; else running checks it."""
        smaller = dims.minimum(have, least)
        if smaller == least:
            return
        if isinstance(smaller, int) and isinstance(least, int):
            raise ValueError(f"{message} ({smaller} against {least}), written at {self.builder.loc}")
        self.check_size(smaller, least, message, before)

    def bound(self, value: Value) -> Size:
        """A new name for a run-time number."""
        self.fresh += 1
        name = dims.name(f"s{self.fresh}")
        self.builder.op("bind", value, attrs={"size": name})
        return name


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def too_long(size: Size) -> bool:
    """Whether it is better computed by the program than written where it is used."""
    return isinstance(size, Expr) and len(size.text) > LONGEST_SIZE


def shared_in(nodes: Sequence[Apply], also: Sequence[Variable]) -> dict[int, list[SharedVariable]]:
    """The shared variables that a graph reads, by container; clones share one."""
    found: dict[int, list[SharedVariable]] = {}
    seen: set[Variable] = set()
    for v in [*(x for node in nodes for x in node.sources), *also, *_inside(nodes)]:
        if isinstance(v, SharedVariable) and v not in seen:
            seen.add(v)
            found.setdefault(id(v.container), []).append(v)
    return found


def _inside(nodes: Sequence[Apply]) -> list[Variable]:
    """What is read within bodies beside parameters; captures are inputs of the node already."""
    return [v for node in nodes if node.body is not None for v in node.body.results]


def _constant_key(v: Variable) -> Any:
    if isinstance(v, TensorConstant) and v.data.ndim == 0:
        return ("constant", v.data.item())
    return v
