"""Algebra to a fixed point."""

from __future__ import annotations

from tcc.ir.core import Func
from tcc.passes.manager import Context
from tcc.passes.pattern import apply_rules
from tcc.passes.rules import RULES


def canonicalize(func: Func, ctx: Context) -> None:
    """Applies the rules of `passes/rules.py` that `ctx.strength` allows, until none matches."""
    for text, count in apply_rules(func, RULES, strength=ctx.strength).items():
        ctx.firings[text] = ctx.firings.get(text, 0) + count
