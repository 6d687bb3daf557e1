"""None as a variable."""

from __future__ import annotations

from typing import Any

from tcc.types import NoneType as NoneTypeT
from tcc.types import none_type
from tcc.variable import Constant, Variable, as_variable

__all__ = ["NoneConst", "NoneTypeT", "as_int_none_variable", "none_type_t"]

none_type_t = none_type
NoneConst = Constant(none_type, None, "NoneConst")


def as_int_none_variable(x: Any) -> Any:
    """NoneConst for None, an integer scalar for all else; TypeError if it is neither."""
    if x is None or isinstance(x, Variable) and x.type == none_type:
        return NoneConst
    x = as_variable(x)
    if x.type.ndim or x.type.dtype[:3] not in ("int", "uin"):
        raise TypeError("index must be int or uints", x.type)
    return x
