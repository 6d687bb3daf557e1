"""Functions of the stored elements: those that leave 0 at 0 under their plain names, others as `structured_...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tcc.tensor as T
from tcc.sparse.basic import as_sparse_variable, csm_data, like

PLAIN = (
    "sin arcsin tan arctan sinh arcsinh tanh arctanh ceil floor trunc sgn sqr sqrt expm1 log1p deg2rad rad2deg conj abs_"
).split()


def _of_elements(function: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    def made(x: Any, *others: Any) -> Any:
        x = as_sparse_variable(x)
        return like(x, function(csm_data(x), *others))

    made.__name__ = made.__qualname__ = name
    made.__doc__ = doc
    return made


for _name in PLAIN:
    globals()[_name] = _of_elements(getattr(T, _name), _name, f"{_name} of each stored element.")
rint = _of_elements(T.round_half_to_even, "rint", "Each stored element rounded, halves to the even number.")


def structured_monoid(tensor_op: Callable[..., Any]) -> Callable[[Any], Any]:
    """A decorator that makes a function of sparse matrices out of `tensor_op`, of each stored element; only the name and the
    docstring of what it decorates are used."""
    return lambda f: _of_elements(tensor_op, f.__name__, f.__doc__ or "")


def _sigmoid(x: Any) -> Any:
    from tcc.tensor.nnet import sigmoid

    return sigmoid(x)


structured_sigmoid = _of_elements(_sigmoid, "structured_sigmoid", "The sigmoid of each stored element.")
structured_exp = _of_elements(T.exp, "structured_exp", "exp of each stored element.")
structured_log = _of_elements(T.log, "structured_log", "log of each stored element.")
structured_pow = _of_elements(
    T.pow, "structured_pow", "structured_pow(x, y): each stored element to the power of y."
)
structured_minimum = _of_elements(T.minimum, "structured_minimum", "Each stored element, but at most y.")
structured_maximum = _of_elements(T.maximum, "structured_maximum", "Each stored element, but at least y.")
structured_add = _of_elements(T.add, "structured_add", "y added to each stored element.")

__all__ = [  # noqa: PLE0604
    *PLAIN,
    "rint",
    "structured_add",
    "structured_exp",
    "structured_log",
    "structured_maximum",
    "structured_minimum",
    "structured_monoid",
    "structured_pow",
    "structured_sigmoid",
]
