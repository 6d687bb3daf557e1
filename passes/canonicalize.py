"""Algebra to a fixed point."""

from __future__ import annotations

import functools

from tcc.ir.core import Func
from tcc.passes.cse import merge_equal
from tcc.passes.manager import Context
from tcc.passes.pattern import Index, apply_rules, index
from tcc.passes.rules import ALGEBRA, STABILISE


def canonicalize(func: Func, ctx: Context, *, composites: bool = True) -> None:
    """Applies the rules of `passes/rules.py` that `ctx.strength` allows and merges what became equal, until neither
    changes anything.

    Without `composites` those stay away that make softmax and the like out of parts: so after `expand`.
    """
    rules = _rules(composites, ctx.strength)
    merged = 1
    while merged:
        for text, count in apply_rules(func, rules).items():
            ctx.firings[text] = ctx.firings.get(text, 0) + count
        merged = merge_equal(func.body)


@functools.cache
def _rules(composites: bool, strength: str) -> Index:
    return index([*STABILISE, *ALGEBRA] if composites else ALGEBRA, strength)
