"""Algebra to a fixed point."""

from __future__ import annotations

from tcc.ir.core import Func
from tcc.passes.cse import merge_equal
from tcc.passes.manager import Context
from tcc.passes.pattern import apply_rules
from tcc.passes.rules import ALGEBRA, STABILISE


def canonicalize(func: Func, ctx: Context, *, composites: bool = True) -> None:
    """Applies the rules of `passes/rules.py` that `ctx.strength` allows and merges what became equal, until neither
    changes anything.

    Without `composites` those stay away that make softmax and the like out of parts: so after `expand`.
    """
    rules = [*STABILISE, *ALGEBRA] if composites else ALGEBRA
    merged = 1
    while merged:
        for text, count in apply_rules(func, rules, strength=ctx.strength).items():
            ctx.firings[text] = ctx.firings.get(text, 0) + count
        merged = merge_equal(func.body)
