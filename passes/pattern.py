"""Rewrite rules written as algebra, and the driver that applies them until nothing changes.

Both sides of a rule are Python expressions over row names: operators stand for `add sub mul div pow neg not`, free names
for values (or attributes: `sum(x, axes=A)`), numbers for splat constants.  `keep(r, axes=A)` stands for the usual way
to bring a reduced `r` back to full rank: the axes A inserted and broadcast.  What algebra cannot say is a function
rule: it gets the op and a builder before it, and returns the new value or None.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tcc.ir.builder import Builder
from tcc.ir.core import Func, Op, Value
from tcc.ir.optable import TABLE
from tcc.ir.types import COMPLEX, Type
from tcc.passes.cse import freeze, repeatable
from tcc.passes.fold import fold_op, splat

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
    ast.USub: "neg",
    ast.Invert: "not",
}
STRENGTHS = ("exact", "stable", "fast")  # bit for bit; rounds differently, never worse; needs the user's word

Found = dict[str, Any]  # names of a pattern -> values and attributes
Condition = Callable[[Found], bool]


@dataclass(frozen=True)
class Call:
    """A row applied to patterns, with what its attributes must be: a name to bind, or an `ast.literal_eval` value."""

    name: str
    args: tuple[Pattern, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """A free name."""

    name: str


Pattern = Name | int | float | Call


class Rule(NamedTuple):
    """`left` may be replaced by `right` where `when` holds.  `samples` (name -> type) are for the test on numbers."""

    text: str
    left: Call
    right: Pattern
    strength: str
    when: Condition | None
    samples: Mapping[str, Any]
    low: float
    high: float

    @property
    def roots(self) -> tuple[str, ...]:
        return (self.left.name,)

    def apply(self, op: Op, b: Builder) -> Value | None:
        found: Found = {}
        if not match(self.left, op.result, found) or (self.when is not None and not self.when(found)):
            return None
        return build(self.right, found, b, op.result.type)


class FunctionRule(NamedTuple):
    """A rewrite of the ops named `roots` that algebra cannot say, with an operand made by one of `after` if any are named."""

    text: str
    roots: tuple[str, ...]
    function: Callable[[Op, Builder], Value | None]
    strength: str
    after: frozenset[str] = frozenset()

    def apply(self, op: Op, b: Builder) -> Value | None:
        return self.function(op, b)


AnyRule = Rule | FunctionRule


def rule(
    left: str,
    right: str,
    strength: str = "exact",
    *,
    when: Condition | None = None,
    samples: Mapping[str, Any] | None = None,
    low: float = -2.0,
    high: float = 2.0,
) -> Rule:
    """One line of algebra.  SyntaxError if a side cannot be read, or the right one has a name the left one lacks."""
    lhs, rhs = pattern(left), pattern(right)
    text = f"{left} -> {right}"
    if not isinstance(lhs, Call):
        raise SyntaxError(f"the left side of a rule must be an op: {text}")
    if unknown := free_names(rhs) - free_names(lhs):
        raise SyntaxError(f"{', '.join(sorted(unknown))} is only on the right side: {text}")
    assert strength in STRENGTHS, strength
    return Rule(text, lhs, rhs, strength, when, samples or {}, low, high)


def function_rule(
    *roots: str, strength: str = "exact", after: Sequence[str] = ()
) -> Callable[[Callable[[Op, Builder], Value | None]], FunctionRule]:
    """Makes a rule out of `f(op, builder) -> value or None`; its first docstring line is its text.

    It is asked only about ops of which an operand is made by one of `after`, if any are named.
    """

    def make(f: Callable[[Op, Builder], Value | None]) -> FunctionRule:
        text = (f.__doc__ or f.__name__).splitlines()[0]
        return FunctionRule(text, roots, f, strength, frozenset(after))

    return make


def pattern(source: str) -> Pattern:
    """Reads one side of a rule."""
    return _convert(ast.parse(source, mode="eval").body)


def _convert(e: ast.expr) -> Pattern:
    match e:
        case ast.Name(id=name):
            return Name(name)
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.UnaryOp(op=op, operand=operand):
            return Call(OPERATORS[type(op)], (_convert(operand),))
        case ast.BinOp(left=left, op=op, right=right):
            return Call(OPERATORS[type(op)], (_convert(left), _convert(right)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            attrs = {str(k.arg): _attribute(k.value) for k in keywords}
            return Call(name, tuple(map(_convert, args)), attrs)
    raise SyntaxError(f"not a pattern: {ast.unparse(e)}")


def _attribute(e: ast.expr) -> Any:
    return Name(e.id) if isinstance(e, ast.Name) else ast.literal_eval(e)


def free_names(p: Pattern) -> set[str]:
    """The names that a pattern binds or uses, of values and of attributes."""
    if isinstance(p, Name):
        return {p.name}
    if not isinstance(p, Call):
        return set()
    found = {a.name for a in p.attrs.values() if isinstance(a, Name)}
    return found.union(*map(free_names, p.args))


# -- matching and building -----------------------------------------------------------------------------------------


def match(p: Pattern, v: Value, found: Found) -> bool:
    """Whether `v` has the form `p`; fills `found`, whose content is void when the answer is no."""
    if isinstance(p, Name):
        return found.setdefault(p.name, v) is v
    if not isinstance(p, Call):
        value = splat(v)
        return value is not None and bool(value == p)
    if p.name == "keep":
        return _match_keep(p, v, found)
    op = v.op
    if op is None or op.name != p.name or not _match_attrs(p, op.attrs, found):
        return False
    if len(op.operands) != len(p.args):
        return False
    orders = [op.operands, op.operands[::-1]] if op.defn.commutes else [op.operands]
    for operands in orders:
        trial = dict(found)
        if all(match(q, w, trial) for q, w in zip(p.args, operands)):
            found.update(trial)
            return True
    return False


def _match_attrs(p: Call, attrs: Mapping[str, Any], found: Found) -> bool:
    for key, want in p.attrs.items():
        got = attrs.get(key)
        if isinstance(want, Name):
            want = found.setdefault(want.name, got)
        if freeze(want) != freeze(got):
            return False
    return True


def _match_keep(p: Call, v: Value, found: Found) -> bool:
    source, axes = kept(v)
    if not axes or not _match_attrs(p, {"axes": axes}, found):
        return False
    return match(p.args[0], source, found)


def kept(v: Value) -> tuple[Value, list[int]]:
    """(r, axes) such that `v` is `r` with `axes` inserted and broadcast; (v, []) if it is not made like that."""
    source = v
    if v.op is None or v.op.name != "broadcast":
        return v, []
    source = v.op.operands[0]
    order = list(range(source.type.rank))
    if source.op is not None and source.op.name == "dimshuffle":
        order = list(source.op.attrs["order"])
        source = source.op.operands[0]
    order = [-1] * (v.type.rank - len(order)) + order
    axes = [i for i, o in enumerate(order) if o == -1]
    if [o for o in order if o != -1] != list(range(source.type.rank)):
        return v, []
    if any(v.type.shape[i] != source.type.shape[o] for i, o in enumerate(order) if o != -1):
        return v, []
    return source, axes


def build(p: Pattern, found: Found, b: Builder, like: Type) -> Value:
    """The value of `p`; a bare number takes the type `like`."""
    if isinstance(p, Name):
        value: Value = found[p.name]
        return value
    if not isinstance(p, Call):
        return b.const(p, like)
    made = {i: build(q, found, b, like) for i, q in enumerate(p.args) if not isinstance(q, int | float)}
    siblings = [v.type for v in made.values() if v.type.dtype != "bool"]
    number_type = siblings[0] if siblings else like
    operands = [made[i] if i in made else build(q, found, b, number_type) for i, q in enumerate(p.args)]
    attrs = {k: found[a.name] if isinstance(a, Name) else a for k, a in p.attrs.items()}
    return b.op(p.name, *operands, attrs=attrs).result


CONSTANTS = FunctionRule("an operation on splats -> a splat", (), lambda op, b: fold_op(op, 0), "exact")


# -- the driver ----------------------------------------------------------------------------------------------------


def is_complex(op: Op) -> bool:
    """Whether it computes with complex numbers as a whole, for which the algebra of the rules does not hold."""
    if op.name in ("real", "imag", "complex"):
        return False
    for values in (op.operands, op.results):
        for v in values:
            if v.type.dtype in COMPLEX:
                return True
    return False


# What may rewrite an op of a name: rules, each with the facts that it needs, and the ops of which one has to make an operand.
Index = Mapping[str, Sequence[tuple[AnyRule, frozenset["Fact"], frozenset[str]]]]


def index(rules: Sequence[AnyRule], strength: str = "stable") -> Index:
    """The rules up to a strength as `apply_rules` wants them."""
    allowed = STRENGTHS[: STRENGTHS.index(strength) + 1]
    by_root: dict[str, list[tuple[AnyRule, frozenset[Fact], frozenset[str]]]] = {}
    for r in rules:
        if r.strength in allowed:
            needs = needed(r.left) if isinstance(r, Rule) else frozenset()
            after = r.after if isinstance(r, FunctionRule) else frozenset()
            for root in r.roots:
                assert root in TABLE, f"no row named {root}, in the rule {r.text}"
                by_root.setdefault(root, []).append((r, needs, after))
    return by_root


def apply_rules(func: Func, rules: Index) -> dict[str, int]:
    """Rewrites until no rule matches, and counts the firings.

    TypeError if a rule changes a type; RuntimeError names a rule that goes on firing.
    """
    work = deque(func.body.walk())
    waiting = set(work)
    firings: dict[str, int] = {}
    budget = 1000 + 64 * len(work)
    while work:
        op = work.popleft()
        waiting.discard(op)
        if (
            op.parent is None
            or len(op.results) != 1
            or (not op.result.uses and repeatable(op))
            or is_complex(op)
        ):
            continue
        makers, there = facts(op)
        tried = [
            r
            for r, needs, after in rules.get(op.name, ())
            if needs <= there and not (after and makers.isdisjoint(after))
        ]
        for r in [CONSTANTS, *tried] if makers <= {"const"} else tried:
            changed = _apply(r, op)
            if changed is None:
                continue
            firings[r.text] = firings.get(r.text, 0) + 1
            if sum(firings.values()) > budget:
                often = max(firings, key=lambda text: firings[text])
                raise RuntimeError(f"rules do not settle: {often!r} was applied {firings[often]} times")
            fresh = [o for o in changed if o not in waiting]
            work.extendleft(reversed(fresh))
            waiting.update(fresh)
            break
    return firings


# -- what a glance at the operands tells, by which most rules are left out -------------------------------------------

TWICE = "one operand twice"
Fact = Hashable  # the name of an op that makes an operand, a number that fills one, TWICE


def facts(op: Op) -> tuple[set[str], set[Fact]]:
    """The ops that make the operands of `op` ("" for none), and all facts about these."""
    makers: set[str] = set()
    numbers: list[Fact] = []
    for v in op.operands:
        source = v.owner
        makers.add(source.name if isinstance(source, Op) else "")
        if isinstance(source, Op) and source.name == "const":
            numbers.append(splat(v))
    found: set[Fact] = {*makers, *numbers}
    if len(op.operands) > 1 and len(set(op.operands)) < len(op.operands):
        found.add(TWICE)
    return makers, found


def needed(p: Call) -> frozenset[Fact]:
    """The facts about the operands of whatever `p` matches."""
    found: set[Fact] = set()
    for q in p.args:
        if isinstance(q, Call):
            found.add("broadcast" if q.name == "keep" else q.name)
        elif not isinstance(q, Name):
            found.add(q)
        elif p.args.count(q) > 1:
            found.add(TWICE)
    return frozenset(found)


def _apply(r: AnyRule, op: Op) -> list[Op] | None:
    """Tries one rule on one op; the operations to look at again, or None when it does not apply."""
    assert op.parent is not None
    before, old = op.prev, op.result
    new = r.apply(op, Builder(op.parent, before=op, loc=op.loc))
    made = _between(before, op)
    if new is None or new is old:
        for o in reversed(made):
            o.erase()
        return None
    if new.type != old.type:
        raise TypeError(f"rule {r.text!r} makes {new.type} of {old.type} ({op.loc or op.name})")
    users = old.users
    if new.op in made:
        new.name = old.name
    operands = list(op.operands)
    op.replace_by([new])
    sources = _drop_dead([*operands, *(v for o in made for v in o.results)])
    return [*(o for o in made if o.parent), *(u for u in users if u.parent), *sources]


def _between(before: Op | None, op: Op) -> list[Op]:
    found: list[Op] = []
    at = op.prev
    while at is not before:
        assert at is not None
        found.append(at)
        at = at.prev
    return found[::-1]


def _drop_dead(values: Sequence[Value]) -> list[Op]:
    """Erases what made `values` and is used no more; rules that ask for a single reader see the truth.  Returns the
    remaining single readers of values that lost one."""
    again: list[Op] = []
    work = list(values)
    while work:
        v = work.pop()
        op = v.op
        if op is None or op.parent is None:
            continue
        if not any(r.uses for r in op.results) and repeatable(op):
            work += op.operands
            op.erase()
        elif len(v.uses) == 1:
            again += v.users
    return again
