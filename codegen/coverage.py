"""What native code can be made of."""

from __future__ import annotations

from tcc.ir.core import Func
from tcc.ir.types import COMPILED, COMPLEX


def require_native(func: Func) -> None:
    """TypeError names the first op of a function of values that only the interpreter runs, its types and its line."""
    for op in func.body.walk():
        types = [v.type for v in (*op.operands, *op.results)]
        odd = next((t.dtype for t in types if t.dtype not in COMPILED | COMPLEX), None)
        if odd is None:
            continue
        takes = ", ".join(str(v.type) for v in op.operands)
        where = f"\nwritten at {op.loc}" if op.loc else ""
        raise TypeError(f"{op.name}({takes}): {_advice(odd)}{where}")
    for p in func.body.params:
        if p.type.dtype not in COMPILED | COMPLEX:
            raise TypeError(f"%{p.name} is {p.type}: {_advice(p.type.dtype)}")


def _advice(what: str) -> str:
    return f"there is no native code for {what}; mode='FAST_COMPILE' runs it with NumPy"
