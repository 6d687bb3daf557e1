"""Gradients, Jacobians and Hessians, and values that pass with another gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from tcc import build
from tcc.adjoints import ZERO, accumulate, discrete, given_gradient, instantiated, zeros
from tcc.adjoints import DisconnectedInputError as DisconnectedInputError
from tcc.adjoints import DisconnectedType as DisconnectedType
from tcc.adjoints import NullType as NullType
from tcc.adjoints import NullTypeGradError as NullTypeGradError
from tcc.backward import backward
from tcc.creation import arange
from tcc.elemwise import clip
from tcc.graph import Shown, inputs
from tcc.ir.callers import warn
from tcc.ir.optable import OpDef, Undefined
from tcc.locations import place
from tcc.loops import scan
from tcc.settings import config
from tcc.types import TensorType, tensor_type
from tcc.variable import TensorConstant, Variable, as_variable, scalar_constant


def grad_undefined(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """What an op's `grad` returns for an input by which its results have no derivative: an error for who needs it."""
    return Undefined(f"{op} has no gradient by its input {x_pos}, {x}. {comment}".rstrip())


def grad_not_implemented(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """The same for a derivative that exists but that nobody has written."""
    return Undefined(
        f"the gradient of {op} by its input {x_pos}, {x}, is not implemented. {comment}".rstrip()
    )


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
    all of its gradient that flows through these variables).  By integers the gradient is of floats.  DisconnectedInputError
    if the cost does not depend on a `wrt`, unless `disconnected_inputs` is "ignore" or "warn".  NullTypeGradError where a
    gradient is not defined; with `null_gradients="return"` its NullType.
    """
    if cost is None and known_grads is None:
        raise ValueError("cost and known_grads can't both be None.")
    asked = list(wrt) if isinstance(wrt, list | tuple) else [wrt]
    for v in asked:
        if not isinstance(v, Variable):
            raise TypeError(f"Expected Variable, got {v!r} of type {type(v)}")
    if null_gradients not in ("raise", "return"):
        raise ValueError(f"null_gradients must be 'raise' or 'return', got {null_gradients!r}")
    seeds = _seeds(cost, known_grads or {})
    settled = frozenset(known_grads or ()) if cost is not None else frozenset[Any]()
    casts: dict[Any, Any] = {}
    if any(isinstance(v, TensorConstant) for v in asked):
        casts = {u: u.origin for u in _constants(seeds) if u.origin in asked}
    grads = backward(seeds, [*asked, *casts], set(consider_constant or ()), settled=settled)
    for u, v in casts.items():
        if u in grads:
            accumulate(grads, v, grads[u])
    out = [
        _finished(v, grads.get(v), disconnected_inputs, return_disconnected, null_gradients) for v in asked
    ]
    if add_names and cost is not None and cost.name is not None:
        for v, g in zip(asked, out):
            if v.name is not None and isinstance(g, Variable) and g.owner is not None:
                g.name = f"(d{cost.name}/d{v.name})"
    if isinstance(wrt, tuple):
        return tuple(out)
    return out if isinstance(wrt, list) else out[0]


def _seeds(cost: Any, known: Mapping[Any, Any]) -> dict[Any, Any]:
    """The gradients that the walk back starts from: of the cost, 1, and those that are known, in their variables' shapes."""
    seeds: dict[Any, Any] = {} if cost is None else {_checked_cost(cost): _ones(cost)}
    for v, given in known.items():
        g = given_gradient(given)
        if g is None:
            seeds.pop(v, None)
        elif isinstance(g, Undefined):
            seeds[v] = g
        elif g.type.ndim > v.type.ndim:
            raise TypeError(f"known_grads: the gradient of {v} has {g.type.ndim} axes, {v} has {v.type.ndim}")
        else:
            seeds[v] = g if g.type.ndim == v.type.ndim else build.elementwise("second", *_of_one_dtype(v, g))
    return seeds


def _of_one_dtype(model: Any, g: Any) -> tuple[Any, Any]:
    return build.cast(model, g.type.dtype), g


def _constants(seeds: Mapping[Any, Any]) -> list[TensorConstant]:
    """The constants of a graph that implicit casts made of others."""
    return [v for v in inputs(seeds) if isinstance(v, TensorConstant) and v.origin is not None]


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
    return instantiated(g, v)


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
        warn(message)
    elif policy != "ignore":
        raise ValueError(
            "Invalid value for keyword 'disconnected_inputs', valid values are 'ignore', 'warn' and 'raise'."
        )


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
        [_finished(v, g.get(v), "ignore", "zero") for v in group]
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
    return clip(g, lower, upper)


def grad_scale(x: Any, multiplier: Any) -> Any:
    """x, whose gradient is multiplied."""
    return passing("GradScale", x, functools.partial(_scaled, multiplier))


def _scaled(multiplier: Any, g: Any) -> Any:
    return g * multiplier
