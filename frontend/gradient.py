"""Reverse-mode differentiation: one walk from the cost back to what is asked for, by the rows' gradient rules."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from tcc import build
from tcc.graph import Apply, Shown, inputs, located_at, place, toposort
from tcc.ir.optable import OpDef, Undefined
from tcc.loopgrad import pulled_scan
from tcc.settings import config
from tcc.types import TensorType, Type, tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant

DISCRETE = ("bool", "int", "uin")
CUTS = frozenset(
    {"shape_of", "index", "indices"}
)  # what they read has no influence that a gradient could see


class DisconnectedInputError(ValueError):
    """The cost does not depend on a variable that its gradient is asked for."""


class NullTypeGradError(TypeError):
    """A gradient that is needed is not defined."""


class DisconnectedType:
    """The type of a gradient by something on which the cost does not depend.  An op's `grad` returns `DisconnectedType()()`."""

    def __call__(self) -> DisconnectedType:
        return self

    @property
    def type(self) -> DisconnectedType:
        """Itself: what stands for the gradient is its type too."""
        return self

    def __repr__(self) -> str:
        return "DisconnectedType"


class NullType(Type):
    """The type of a gradient that is not defined; `why_null` says why."""

    def __init__(self, why_null: str = "(no reason given)") -> None:
        self.why_null = why_null

    def __repr__(self) -> str:
        return f"NullType: {self.why_null}"


def grad_undefined(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """What an op's `grad` returns for an input by which its results have no derivative: an error for who needs it."""
    return Undefined(f"{op} has no gradient by its input {x_pos}, {x}. {comment}".rstrip())


def grad_not_implemented(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """The same for a derivative that exists but that nobody has written."""
    return Undefined(
        f"the gradient of {op} by its input {x_pos}, {x}, is not implemented. {comment}".rstrip()
    )


class _Zero:
    """A gradient that is zero everywhere: the result depends on the variable in steps only."""


ZERO = _Zero()


def grad(
    cost: Any,
    wrt: Any,
    consider_constant: Sequence[Any] | None = None,
    disconnected_inputs: str = "raise",
    add_names: bool = True,
    known_grads: Mapping[Any, Any] | None = None,
    return_disconnected: str = "zero",
    null_gradients: str = "raise",
) -> Any:
    """d cost / d wrt, as a variable, or a list or tuple like `wrt`.

    The cost is a scalar of floats (or None with `known_grads`, which maps variables to their gradients; with a cost they are
    all of its gradient that flows through these variables).  By integers the gradient is of floats.  DisconnectedInputError if the cost does not depend on a `wrt`, unless `disconnected_inputs` is
    "ignore" or "warn".  NullTypeGradError where a gradient is not defined; with `null_gradients="return"` its NullType.
    """
    if cost is None and known_grads is None:
        raise ValueError("cost and known_grads can't both be None.")
    asked = list(wrt) if isinstance(wrt, list | tuple) else [wrt]
    for v in asked:
        if not isinstance(v, Variable):
            raise TypeError(f"Expected Variable, got {v!r} of type {type(v)}")
    seeds: dict[Any, Any] = {}
    settled = frozenset[Any]()
    if cost is not None:
        seeds[_checked_cost(cost)] = _ones(cost)
        settled = frozenset(known_grads or ())
    for v, g in (known_grads or {}).items():
        g = given_gradient(g)
        if g is None:
            seeds.pop(v, None)
            continue
        if isinstance(g, Undefined):
            seeds[v] = g
            continue
        if g.type.ndim > v.type.ndim:
            raise TypeError(f"known_grads: the gradient of {v} has {g.type.ndim} axes, {v} has {v.type.ndim}")
        seeds[v] = g if g.type.ndim == v.type.ndim else build.elementwise("second", *_of_one_dtype(v, g))
    casts: dict[Any, Any] = {}
    if any(isinstance(v, TensorConstant) for v in asked):
        casts = {u: u.origin for u in _constants(seeds) if u.origin in asked}
    grads = backward(seeds, [*asked, *casts], set(consider_constant or ()), settled=settled)
    for u, v in casts.items():
        if u in grads:
            accumulate(grads, v, grads[u])
    if null_gradients not in ("raise", "return"):
        raise ValueError(f"null_gradients must be 'raise' or 'return', got {null_gradients!r}")
    out = [
        _finished(v, grads.get(v), disconnected_inputs, return_disconnected, null_gradients) for v in asked
    ]
    if add_names and cost is not None and cost.name is not None:
        for v, g in zip(asked, out):
            if v.name is not None and g is not None and isinstance(g, Variable) and g.owner is not None:
                g.name = f"(d{cost.name}/d{v.name})"
    if isinstance(wrt, tuple):
        return tuple(out)
    return out if isinstance(wrt, list) else out[0]


def _of_one_dtype(model: Any, g: Any) -> tuple[Any, Any]:
    return build.cast(model, g.type.dtype), g


def _constants(seeds: Mapping[Any, Any]) -> list[TensorConstant]:
    """The constants of a graph that implicit casts made of others."""
    return [v for v in inputs(seeds) if isinstance(v, TensorConstant) and v.origin is not None]


def given_gradient(g: Any) -> Any:
    """What an op's `grad` or the user says: a variable, Undefined, or None for a gradient that does not exist."""
    if g is None or isinstance(g, DisconnectedType):
        return None
    if isinstance(g, Undefined):
        return g
    if isinstance(g, Variable) and isinstance(g.type, NullType):
        return Undefined(g.type.why_null)
    return g if isinstance(g, Variable) else as_variable(g)


def _checked_cost(cost: Any) -> Any:
    if not isinstance(cost, Variable) or not isinstance(cost.type, TensorType):
        raise TypeError(f"cost must be a scalar variable, got {cost!r}")
    if cost.type.ndim != 0:
        raise TypeError(
            f"cost must be a scalar. It is {cost}, of {cost.type}: take its mean() or sum() first."
        )
    return cost


def _ones(cost: Any) -> Any:
    dtype = str(config.floatX) if discrete(cost) else cost.type.dtype
    value = scalar_constant(1.0, dtype)
    made = build.node("second", cost, value, types=(tensor_type(dtype, ()),))
    made.shown = Shown("Elemwise{second,no_inplace}", (cost, value))
    return made.result


def discrete(v: Any) -> bool:
    return isinstance(v.type, TensorType) and v.type.dtype[:3] in DISCRETE or v.type.dtype == "bool"


def _finished(
    v: Any, g: Any, disconnected_inputs: str, return_disconnected: str, null_gradients: str = "raise"
) -> Any:
    if isinstance(g, Undefined):
        if null_gradients == "return":
            return Variable(NullType(g.reason))
        raise NullTypeGradError(f"tensor.grad encountered a NaN. {g.reason}")
    if g is None:
        _disconnected(v, disconnected_inputs)
        if return_disconnected == "None":
            return None
        if return_disconnected == "Disconnected":
            return DisconnectedType()
        if return_disconnected != "zero":
            raise ValueError(
                "invalid value for return_disconnected: must be 'zero', 'None' or 'Disconnected'"
            )
    if g is None or g is ZERO:
        return zeros(v)
    return fitted(g, v)


def zeros(v: Any) -> Any:
    """Zeros of the type that a gradient by `v` has."""
    if not isinstance(v.type, TensorType):
        return v.zeros_like()
    from tcc.creation import zeros_like

    return zeros_like(v, str(config.floatX) if discrete(v) else v.type.dtype)


def _disconnected(v: Any, policy: str) -> None:
    message = (
        "grad method was asked to compute the gradient with respect to a variable that is not part of the computational "
        f"graph of the cost, or is used only by a non-differentiable operator: {v}"
        + (f", created at {place(v.loc)}" if v.loc[0] else "")
        + ". If that is meant, pass disconnected_inputs='ignore' for zeros."
    )
    if policy == "raise":
        raise DisconnectedInputError(message)
    if policy == "warn":
        warnings.warn(message, stacklevel=4)
    elif policy != "ignore":
        raise ValueError(
            "Invalid value for keyword 'disconnected_inputs', valid values are 'ignore', 'warn' and 'raise'."
        )


def fitted(g: Any, v: Any) -> Any:
    """A gradient with the dtype and flags of what it is by; by integers it stays of floats."""
    if not isinstance(v.type, TensorType):
        return g
    from tcc.shapes import patternbroadcast

    if not discrete(v):
        g = build.cast(g, v.type.dtype)
    if g.type.broadcastable != v.type.broadcastable:
        g = patternbroadcast(g, v.type.broadcastable)
    return g


def backward(
    seeds: Mapping[Any, Any],
    wrt: Sequence[Any],
    constants: set[Any],
    leaves: frozenset[Any] = frozenset(),
    settled: frozenset[Any] = frozenset(),
) -> dict[Any, Any]:
    """The gradient by each variable between `seeds` and `wrt`: a variable, ZERO, or absent where nothing flows.

    Nothing flows through `constants` nor to what is behind `leaves`, and nothing is added to the seeds that are `settled`.
    """
    wanted = set(wrt)
    nodes = toposort(list(seeds), stop=lambda v: v in constants or v in leaves)
    matters: set[Any] = set(wanted)
    for node in nodes:
        if any(v in matters for v in node.inputs):
            matters.update(node.results)
    grads: dict[Any, Any] = {}
    for v, g in seeds.items():
        accumulate(grads, v, g)
    builder = build.Builder()
    for node in reversed(nodes):
        flowing = [grads.get(r) for r in node.results]
        if all(g is None for g in flowing) or not any(v in matters for v in node.inputs):
            continue
        with located_at(node.loc):
            made = pulled(builder, node, flowing, matters, constants)
            for v, g in zip(node.inputs, made):  # of what is in size attributes there is no gradient
                if g is not None and v in matters and v not in settled:
                    accumulate(grads, v, g)
    return grads


def accumulate(grads: dict[Any, Any], v: Any, g: Any) -> None:
    before = grads.get(v)
    if before is None or before is ZERO:
        grads[v] = g
    elif isinstance(g, Undefined):
        grads[v] = g
    elif g is not ZERO and not isinstance(before, Undefined):
        grads[v] = before + g


def pulled(
    b: build.Builder, node: Apply, flowing: Sequence[Any], matters: set[Any], constants: set[Any]
) -> Sequence[Any]:
    """Gradients by the node's operands, or by all its inputs, given those by its results."""
    links = getattr(node.op, "connection_pattern", None) if node.name == "call" else None
    if links is not None:
        links = links(node)
        flowing = [g if any(row[k] for row in links) else None for k, g in enumerate(flowing)]
    undefined = next((g for g in flowing if isinstance(g, Undefined)), None)
    if undefined is not None:
        return [undefined if _reaches(node, k) else None for k in range(len(node.inputs))]
    if node.name == "scan":
        made: Sequence[Any] = pulled_scan(node, flowing, matters, constants)
        return made
    if node.name in CUTS:
        return [None] * len(node.operands)
    if node.name == "packed":
        if all(g is None or g is ZERO for g in flowing):
            return [ZERO] * len(node.operands)
        given = [None if g is ZERO else g for g in flowing]
        of_packed: Sequence[Any] = node.attrs["op"].grad(node.operands, node.results, given)
        return of_packed
    if node.name == "call":
        back = called(node, flowing)
        if links is None:
            return back
        through = [any(on and g is not None for on, g in zip(row, flowing)) for row in links]
        return [g if on else None for g, on in zip(back, through)]
    if node.name == "ifelse":
        return of_branches(node, flowing)
    if node.name == "legacy_draw":  # of the numbers by what their distribution hangs on
        reason = (
            f"numbers drawn at {place(node.loc)} have no gradient by the parameters of their distribution"
        )
        return [None, None, *(Undefined(reason) for _ in node.operands[2:])]
    if all(g is None or g is ZERO for g in flowing) or all(discrete(r) for r in node.results):
        return [ZERO if _reaches(node, k) else None for k in range(len(node.operands))]
    if node.name == "cast":
        return [
            flowing[0] if discrete(node.operands[0]) else build.cast(flowing[0], node.operands[0].type.dtype)
        ]
    if node.name == "rebroadcast":
        from tcc.shapes import patternbroadcast

        return [patternbroadcast(flowing[0], node.operands[0].type.broadcastable)]
    if not node.operands:  # ranges and the like hang on sizes alone
        return []
    if node.defn.grad is None:
        reason = f"{node.name} has no gradient (at {place(node.loc)})"
        return [Undefined(reason) if _reaches(node, k) else None for k in range(len(node.operands))]
    full = [
        build.cast(_fitted_flags(g, r), r.type.dtype) if g is not None and g is not ZERO else b.full(0, r)
        for g, r in zip(flowing, node.results)
    ]
    made = node.defn.grad(b, node, [_conjugate(g) for g in full])
    if any(r.type.dtype in _COMPLEX for r in (*node.operands, *node.results)):
        made = [_conjugate(g) if isinstance(g, Variable) else g for g in made]
    return [
        g if g is None or not discrete(v) or not isinstance(g, Variable) else _of_floats(g)
        for v, g in zip(node.operands, made)
    ]


_COMPLEX = ("complex64", "complex128")


def _conjugate(g: Any) -> Any:
    """Of complex numbers, for which rules are written in conjugates (ir/ops/elementwise.py)."""
    return build.node("conj", g).result if g.type.dtype in _COMPLEX else g


def of_branches(node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """Only the branch that was taken has a gradient, and only that is computed."""
    from tcc.branches import ifelse

    count = len(node.results)
    made: list[list[Any]] = [[], []]
    for k, (g, r) in enumerate(zip(flowing, node.results)):
        for side in (0, 1):
            v = node.operands[1 + side * count + k]
            if g is None or g is ZERO or discrete(r):
                made[side].append(None if g is None else ZERO)
                continue
            pair = [fitted(g, r), zeros(v)] if side == 0 else [zeros(v), fitted(g, r)]
            made[side].append(ifelse(node.operands[0], *pair))
    return [ZERO, *made[0], *made[1]]


def _fitted_flags(g: Any, r: Any) -> Any:
    from tcc.shapes import patternbroadcast

    return g if g.type.broadcastable == r.type.broadcastable else patternbroadcast(g, r.type.broadcastable)


def _of_floats(g: Any) -> Any:
    return g if not discrete(g) else ZERO


def _reaches(node: Apply, k: int) -> bool:
    """Whether operand k has any influence on the values of the result, be it in steps."""
    if node.name in ("gather", "scatter"):
        return k < (1 if node.name == "gather" else 2)
    return not (node.name == "second" and k == 0)


def called(node: Apply, flowing: Sequence[Any]) -> Sequence[Any]:
    """The gradient of a user's op, or of one of those below that are made to change gradients."""
    rule = node.attrs.get("gradient")
    if rule is None:
        raise NullTypeGradError(f"{node.attrs['name']} has no gradient: define grad(inputs, output_grads)")
    given = [zeros(r) if g is None or g is ZERO else g for g, r in zip(flowing, node.results)]
    made = rule(list(node.operands), given)
    if made is None:
        raise TypeError(f"{node.attrs['name']}.grad returned None, expected a list of gradients")
    made = list(made) if isinstance(made, list | tuple) else [made]
    if len(made) != len(node.operands):
        raise ValueError(
            f"{node.attrs['name']}.grad returned {len(made)} gradients for {len(node.operands)} inputs"
        )
    return [given_gradient(g) for g in made]


def Lop(
    f: Any, wrt: Any, eval_points: Any, consider_constant: Any = None, disconnected_inputs: str = "raise"
) -> Any:
    """eval_points . d f / d wrt: the product of a row vector with the Jacobian."""
    outputs = list(f) if isinstance(f, list | tuple) else [f]
    points = list(eval_points) if isinstance(eval_points, list | tuple) else [eval_points]
    if len(outputs) != len(points):
        raise ValueError(f"Lop: {len(outputs)} functions, {len(points)} eval_points")
    return grad(None, wrt, consider_constant, disconnected_inputs, known_grads=dict(zip(outputs, points)))


def jacobian(
    expression: Any, wrt: Any, consider_constant: Any = None, disconnected_inputs: str = "raise"
) -> Any:
    """The Jacobian of a vector (of a scalar: its gradient): a scan with one gradient for each of its elements, stacked.  `wrt` may be a list or tuple."""
    from tcc.creation import arange
    from tcc.loops import scan

    expression = as_variable(expression)
    if expression.type.ndim > 1:
        raise TypeError(
            f"tensor.jacobian expects a 1 dimensional variable as `expression`, got {expression.type}. If not use flatten to "
            "make it a vector"
        )
    if expression.type.ndim == 0:
        return grad(expression, wrt, consider_constant, disconnected_inputs)
    asked = list(wrt) if isinstance(wrt, list | tuple) else [wrt]
    made, _ = scan(
        lambda i: grad(expression[i], asked, consider_constant, disconnected_inputs),
        arange(build.size_of(expression, 0)),
        return_list=True,
    )
    if isinstance(wrt, tuple):
        return tuple(made)
    return made if isinstance(wrt, list) else made[0]


def hessian(cost: Any, wrt: Any, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """The matrix of second derivatives of a scalar by a vector, or a list or tuple of them for several vectors."""
    _checked_cost(cost)
    asked = list(wrt) if isinstance(wrt, list | tuple) else [wrt]
    made = []
    for v in asked:
        if v.type.ndim != 1:
            raise TypeError(
                f"tensor.hessian expects a (list of) 1 dimensional variable as `wrt`, got {v.type}"
            )
        slope = grad(cost, v, consider_constant, disconnected_inputs)
        made.append(jacobian(slope, v, consider_constant, disconnected_inputs="ignore"))
    if isinstance(wrt, tuple):
        return tuple(made)
    return made if isinstance(wrt, list) else made[0]


def subgraph_grad(
    wrt: Sequence[Any],
    end: Sequence[Any],
    start: Mapping[Any, Any] | None = None,
    cost: Any = None,
    details: bool = False,
) -> Any:
    """(gradients by `wrt`, gradients by `end`) of a part of a graph: `start` maps variables to their gradients, and
    nothing flows through `end`.  With `cost` its gradient is added.  With `details` also (by start, by cost) of `end`.
    """
    if start is None and cost is None:
        raise ValueError("`cost` or `start` must be specified.")
    held = {**dict.fromkeys(end, None)}
    by_start = backward(dict(start or {}), [*wrt, *held], set(), frozenset(held))
    by_cost = (
        {}
        if cost is None
        else backward({_checked_cost(cost): _ones(cost)}, [*wrt, *held], set(), frozenset(held))
    )
    total: dict[Any, Any] = {}
    for part in (by_start, by_cost):
        for v in (*wrt, *held):
            if part.get(v) is not None and v not in total:
                total[v] = part[v]
            elif part.get(v) is not None:
                accumulate(total, v, part[v])
    made = [
        [_finished(v, g.get(v), "ignore" if g is not total else "raise", "zero") for v in group]
        for g, group in ((total, wrt), (total, end), (by_start, end), (by_cost, end))
    ]
    return tuple(made) if details else (made[0], made[1])


# -- values that pass, with another gradient -------------------------------------------------------------------------


class _Passing(OpDef):
    """The row `identity` with rules of its own, which are pickled and copied with it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _passing_row, (self.doc, self.grad, self.rop)


class _Rule(NamedTuple):
    """What a row's rule does with the one derivative that comes."""

    of: Callable[[Any], Any]

    def __call__(self, b: Any, op: Any, derivatives: Sequence[Any]) -> list[Any]:
        return [self.of(derivatives[0])]


def _passing_row(name: str, grad: Any, rop: Any) -> OpDef:
    row = build.row("identity")
    known = {f.name: getattr(row, f.name) for f in fields(row)}
    return _Passing(**known | {"doc": name, "grad": grad, "rop": rop})


def _same(t: Any) -> Any:
    return t


def passing(
    name: str, x: Any, rule: Callable[[Any], Any], along: Callable[[Any], Any] = _same, op: Any = None
) -> Any:
    """x itself, whose gradient is changed by `rule`, and whose directional derivative by `along`, which pickle; `op` is what
    its node shows."""
    x = as_variable(x)
    made = build.elementwise("identity", x).owner
    made.shown = Shown(name, (x,), op)
    made.defn = _passing_row(name, _Rule(rule), _Rule(along))
    return made.result


def _none(g: Any) -> None:
    return None


def _zero(g: Any) -> Any:
    return ZERO


def disconnected_grad(x: Any) -> Any:
    """x, through which no gradient flows: what is only reached through it is disconnected."""
    return passing("DisconnectedGrad", x, _none, _none)


def consider_constant(x: Any) -> Any:
    """x, through which no gradient flows: what is only reached through it has a gradient of zero."""
    return passing("ConsiderConstant", x, _zero, zeros)


def zero_grad(x: Any) -> Any:
    """x, through which a gradient of zero flows."""
    return passing("ZeroGrad", x, _zero, zeros)


def undefined_grad(x: Any) -> Any:
    """x, by which no gradient is defined: NullTypeGradError for who needs it."""
    why = f"no gradient is defined by {x}, through undefined_grad"
    return passing("UndefinedGrad", x, functools.partial(_undefined, why))


def _undefined(why: str, g: Any) -> Undefined:
    return Undefined(why)


def grad_clip(x: Any, lower_bound: Any, upper_bound: Any) -> Any:
    """x, whose gradient is clipped."""
    return passing("GradClip", x, functools.partial(_clipped, lower_bound, upper_bound))


def _clipped(lower: Any, upper: Any, g: Any) -> Any:
    from tcc.elemwise import clip

    return clip(g, lower, upper)


def grad_scale(x: Any, multiplier: Any) -> Any:
    """x, whose gradient is multiplied."""
    return passing("GradScale", x, functools.partial(_scaled, multiplier))


def _scaled(multiplier: Any, g: Any) -> Any:
    return g * multiplier
