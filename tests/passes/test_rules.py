"""Every line of algebra on numbers: the left side is built, must be rewritten by its rule, and must mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Value
from tcc.ir.interpret import run as interpret
from tcc.ir.types import Type, numpy_dtype, parse_type
from tcc.ir.verify import verify
from tcc.passes.pattern import STRENGTHS, Call, Name, Pattern, Rule, apply_rules, index, rule
from tcc.passes.rules import RULES

ALGEBRA = [r for r in RULES if isinstance(r, Rule)]
SHAPE = "f32[3,4]"


def attributes(p: Pattern) -> set[str]:
    """The names that stand for attributes."""
    if not isinstance(p, Call):
        return set()
    return {a.name for a in p.attrs.values() if isinstance(a, Name)}.union(*map(attributes, p.args))


def value_names(p: Pattern) -> list[str]:
    if isinstance(p, Name):
        return [p.name]
    return list(dict.fromkeys(n for q in p.args for n in value_names(q))) if isinstance(p, Call) else []


def instance(r: Rule) -> Func:
    """A function that computes the left side of a rule from parameters named like its names."""
    free = [n for n in value_names(r.left) if not isinstance(r.samples.get(n), int | float)]
    block = Block([parse_type(r.samples.get(n, SHAPE)) for n in free], free)
    func, b = Func("f", block), Builder(block)
    found: dict[str, Any] = dict(zip(free, block.params))
    for name in value_names(r.left):
        if name not in found:
            found[name] = b.const(r.samples[name], parse_type(SHAPE))
    found |= {name: r.samples[name] for name in attributes(r.left)}
    b.op("yield", build(r.left, found, b, block.params[0].type))
    return func


def build(p: Pattern, found: dict[str, Any], b: Builder, like: Type) -> Value:
    if isinstance(p, Name):
        value: Value = found[p.name]
        return value
    if not isinstance(p, Call):
        return b.const(p, like)
    operands = [build(q, found, b, like) for q in p.args]
    attrs = {k: found[a.name] if isinstance(a, Name) else a for k, a in p.attrs.items()}
    if p.name != "keep":
        return b.op(p.name, *operands, attrs=attrs).result
    order = iter(range(like.rank))
    inserted = b.dimshuffle(
        operands[0], order=[-1 if k in attrs["axes"] else next(order) for k in range(like.rank)]
    )
    result: Value = b.broadcast(inserted, shape=list(like.shape))
    return result


def arguments(func: Func, r: Rule) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    arrays = []
    for p in func.body.params:
        if p.type.dtype == "bool":
            arrays.append(rng.random(p.type.shape) < 0.5)
        else:
            arrays.append(rng.uniform(r.low, r.high, p.type.shape).astype(numpy_dtype(p.type.dtype)))
    return arrays


@pytest.mark.parametrize("r", ALGEBRA, ids=lambda r: r.text)
def test_both_sides_are_equal(r: Rule) -> None:
    func = instance(r)
    args = arguments(func, r)
    with np.errstate(all="ignore"):
        (want,) = interpret(func, *args)
    firings = apply_rules(func, index([r], r.strength))
    assert firings.get(r.text), "the rule does not apply to its own left side"
    verify(func)
    (got,) = interpret(func, *args)
    if r.strength == "exact":
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("exponent", (-2, -1, -0.5, 0.5, 2, 3, 4))
@pytest.mark.parametrize("dtype", ("f16", "f32", "f64"))
def test_powers_are_numpy_s_at_odd_numbers_too(dtype: str, exponent: float) -> None:
    """As `**` has them, which is `sqrt` for 0.5."""
    t = numpy_dtype(dtype)
    big = 2.0 ** (np.finfo(t).maxexp // 2)
    x = np.array([0, -0.0, 1, -1.5, big, -big, 1 / big, 3, np.inf, -np.inf, np.nan], t)
    block = Block([Type(dtype, x.shape)])
    func, b = Func("f", block), Builder(block)
    b.op("yield", b.pow(block.params[0], b.const(exponent, block.params[0].type)))
    assert apply_rules(func, index(ALGEBRA))
    with np.errstate(all="ignore"):
        (got,) = interpret(func, x)
        np.testing.assert_allclose(got, x**exponent, rtol=3 * np.finfo(t).eps)


@pytest.mark.parametrize("r", [r for r in ALGEBRA if r.strength == "fast"], ids=lambda r: r.text)
def test_fast_rules_wait_for_the_users_word(r: Rule) -> None:
    assert not apply_rules(instance(r), index([r]))


def test_texts_are_unique() -> None:
    texts = [r.text for r in RULES]
    assert len(texts) == len(set(texts))
    assert all(r.strength in STRENGTHS for r in RULES)


def test_a_rule_that_does_not_settle_is_named() -> None:
    back = [rule("x + y", "y + x")]
    with pytest.raises(RuntimeError, match=r"x \+ y -> y \+ x"):
        apply_rules(instance(back[0]), index(back))


def test_a_name_on_the_right_alone_is_refused() -> None:
    with pytest.raises(SyntaxError, match="y is only on the right side"):
        rule("neg(x)", "x + y")
