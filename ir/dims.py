"""Sizes: an int, or an expression over names in one canonical form.

An expression is a polynomial with integer coefficients over atoms; an atom is a name or one of `//`, `%`, `min`, `max`
applied to sizes.  Equal polynomials are equal objects by value, so `n + n` and `2*n` compare equal, and sizes serve as
dictionary keys.  What the canonical form cannot decide (`n//2` against `m`) is simply unequal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Union

Size = Union[int, "Expr"]
MOST_TERMS = 1000  # of one size that is read: a product of sums grows exponentially


@dataclass(frozen=True, slots=True)
class Atom:
    """A name (`kind == "name"`), or `//`, `%`, `min`, `max` of two sizes."""

    kind: str
    name: str = ""
    args: tuple[Size, ...] = ()

    def __str__(self) -> str:
        if self.kind == "name":
            return self.name
        if self.kind in ("min", "max"):
            return f"{self.kind}({', '.join(map(str, self.args))})"
        return f"({operand(self.args[0])}{self.kind}{operand(self.args[1])})"


Monomial = tuple[Atom, ...]  # sorted by text; () is the constant term


@dataclass(frozen=True)
class Expr:
    """A size that is not a plain int.  `terms` maps monomials to coefficients, in canonical order."""

    terms: tuple[tuple[Monomial, int], ...]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Expr({self.text})"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    @cached_property
    def text(self) -> str:
        out = ""
        for mono, c in self.terms:
            body = "*".join(([str(abs(c))] if abs(c) != 1 or not mono else []) + [str(a) for a in mono])
            sign = "-" if c < 0 else "+" if out else ""
            out += sign + body
        return out

    @cached_property
    def names(self) -> frozenset[str]:
        """The names it depends on."""
        found: set[str] = set()
        for mono, _ in self.terms:
            for atom in mono:
                if atom.kind == "name":
                    found.add(atom.name)
                for arg in atom.args:
                    found |= names_of(arg)
        return frozenset(found)

    @cached_property
    def plain(self) -> str | None:
        """The name that it is, if it is just a name."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            atom = self.terms[0][0][0]
            return atom.name if atom.kind == "name" else None
        return None

    def __add__(self, other: Size) -> Size:
        return add(self, other)

    def __radd__(self, other: Size) -> Size:
        return add(other, self)

    def __sub__(self, other: Size) -> Size:
        return add(self, mul(-1, other))

    def __rsub__(self, other: Size) -> Size:
        return add(other, mul(-1, self))

    def __mul__(self, other: Size) -> Size:
        return mul(self, other)

    def __rmul__(self, other: Size) -> Size:
        return mul(other, self)

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other)

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)


class SpecifiedShapeError(ValueError, AssertionError):
    """An array that has not the shape that it is said to have: a wrong value, for which Theano has an AssertionError."""


class PatchError(ValueError, TypeError):
    """Patches do not cover an image: for Theano's programs a TypeError."""


ERRORS = {"specify_shape": SpecifiedShapeError, "tile": SpecifiedShapeError, "images2neibs": PatchError}


def size_error(text: str) -> ValueError:
    """The error for sizes that are not equal, by the op that `text` begins with."""
    return next((kind for name, kind in ERRORS.items() if text.startswith(name)), ValueError)(text)


class SizeMismatch(TypeError):
    """Two sizes that a type rule needs equal.  The graph builder unifies them; everyone else reports them."""

    def __init__(self, message: str, left: Size, right: Size) -> None:
        super().__init__(message)
        self.left, self.right = left, right


@lru_cache(256)  # so that what is asked of a name is found out once
def name(text: str) -> Expr:
    """The size called `text`."""
    return Expr((((Atom("name", text),), 1),))


def names_of(size: Size) -> frozenset[str]:
    return frozenset() if isinstance(size, int) else size.names


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(size, int):
        return (((), size),) if size else ()
    return size.terms


def _order(item: tuple[Monomial, int]) -> tuple[int, str]:
    return (-len(item[0]), "*".join(map(str, item[0])))


def _make(terms: Mapping[Monomial, int]) -> Size:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    shorter = _without_min(kept)
    if shorter is not None:
        return shorter
    return Expr(tuple(sorted(kept.items(), key=_order)))


def add(*sizes: Size) -> Size:
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) == len(sizes):
        return sum(numbers)
    total: dict[Monomial, int] = {}
    for s in sizes:
        for mono, c in _terms(s):
            total[mono] = total.get(mono, 0) + c
    return _make(total)


def _without_min(total: Mapping[Monomial, int]) -> Size | None:
    """`a - min(a, b)` is `max(a - b, 0)`, which stays short where a size is cut again and again."""
    for mono, c in total.items():
        if abs(c) != 1 or len(mono) != 1 or mono[0].kind != "min":
            continue
        for a, b in (mono[0].args, mono[0].args[::-1]):
            if not isinstance(a, int) and all(total.get(m, 0) == -c * k for m, k in a.terms):
                rest = {m: k for m, k in total.items() if m != mono and m not in dict(a.terms)}
                return add(_make(rest), mul(-c, maximum(sub(a, b), 0)))
    return None


def sub(a: Size, b: Size) -> Size:
    return add(a, mul(-1, b))


def mul(*sizes: Size) -> Size:
    scale = math.prod(s for s in sizes if isinstance(s, int))
    named = [s for s in sizes if not isinstance(s, int)]
    if not named or not scale:
        return scale
    total: dict[Monomial, int] = {m: scale * c for m, c in named[0].terms}
    for s in named[1:]:
        step: dict[Monomial, int] = {}
        for m1, c1 in total.items():
            for m2, c2 in _terms(s):
                mono = tuple(sorted(m1 + m2, key=str))
                step[mono] = step.get(mono, 0) + c1 * c2
        total = step
    return _make(total)


def product(shape: tuple[Size, ...] | list[Size]) -> Size:
    """The number of elements of an array of this shape."""
    return mul(*shape) if shape else 1


def floordiv(a: Size, b: Size) -> Size:
    """`a // b` with Python's rounding.

    Division by the number 0 gives 0, as NumPy's integers do; `n*k // n` is k for every n, so that an array without
    elements has the sizes that one with elements would have.
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    if b == 1:
        return a
    if a == b:
        return 1
    quotient, rest = _divide(a, b)
    if rest == 0:
        return quotient
    return Expr((((Atom("//", args=(a, b)),), 1),))


def mod(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else 0
    if b == 1 or _divide(a, b)[1] == 0:
        return 0
    return Expr((((Atom("%", args=(a, b)),), 1),))


def _divide(a: Size, b: Size) -> tuple[Size, Size]:
    """(q, r) with a == q*b + r, where r is 0 if every term of `a` is a multiple of the single term `b`."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return 0, a
    (atoms, scale), quotient = divisor[0], {}
    for mono, c in _terms(a):
        left = list(mono)
        for atom in atoms:
            if atom not in left:
                return 0, a
            left.remove(atom)
        if c % scale:
            return 0, a
        quotient[tuple(left)] = c // scale
    return _make(quotient), 0


def minimum(a: Size, b: Size) -> Size:
    return _extreme("min", a, b)


def maximum(a: Size, b: Size) -> Size:
    return _extreme("max", a, b)


def _extreme(kind: str, a: Size, b: Size) -> Size:
    gap = sub(a, b)
    if isinstance(gap, int):
        return (a if gap < 0 else b) if kind == "min" else (a if gap > 0 else b)
    if nonnegative(gap):
        return b if kind == "min" else a
    if nonnegative(mul(-1, gap)):
        return a if kind == "min" else b
    for one, other in ((a, b), (b, a)) if kind == "max" else ():
        if other == 0 and (shorter := _cut_twice(one)) is not None:
            return shorter
    first, second = sorted((a, b), key=lambda s: (isinstance(s, int), str(s)))
    return Expr((((Atom(kind, args=(first, second)),), 1),))


def _cut_twice(a: Size) -> Size | None:
    """The shorter form of `max(a, 0)`, if there is one: `max(max(e, 0) - c, 0)` is `max(e - c, 0)` where c >= 0."""
    if isinstance(a, int):
        return None
    for mono, c in a.terms:
        if c == 1 and len(mono) == 1 and mono[0].kind == "max" and 0 in mono[0].args:
            rest = _make({m: k for m, k in a.terms if m != mono})
            if nonnegative(mul(-1, rest)):
                return maximum(add(*mono[0].args, rest), 0)
    return None


def nonnegative(size: Size) -> bool:
    """Whether it is certainly >= 0, every name being a size and so >= 0 itself."""
    if isinstance(size, int):
        return size >= 0
    for mono, c in size.terms:
        if c < 0:
            most = _at_most(mono[0]) if len(mono) == 1 else None
            return most is not None and nonnegative(add(size, Expr(((mono, -c),)), mul(c, most)))
    return all(_atom_nonnegative(a) for mono, _ in size.terms for a in mono)


def _at_most(atom: Atom) -> Size | None:
    """What an atom that is not negative is not above, if that is plain to see."""
    if atom.kind == "name" or not all(map(nonnegative, atom.args)):
        return None
    a, b = atom.args
    return {"%": b, "//": a, "min": a}.get(atom.kind)


def _atom_nonnegative(atom: Atom) -> bool:
    if atom.kind in ("name", "//", "%"):
        return all(map(nonnegative, atom.args))
    if atom.kind == "max":
        return any(map(nonnegative, atom.args))
    return all(map(nonnegative, atom.args))


def substitute(size: Size, known: Mapping[str, Size]) -> Size:
    """`size` with the names in `known` replaced."""
    if isinstance(size, int):
        return size
    if size.plain is not None:
        return known.get(size.plain, size)
    if known.keys().isdisjoint(size.names):  # a look-up for each name of the size
        return size
    return _rebuild(size, lambda text: known[text] if text in known else name(text))


def evaluate(size: Size, known: Mapping[str, int]) -> int:
    """The number that it is; KeyError names a size that is not known."""
    if isinstance(size, int):
        return size
    total = 0
    for mono, c in size.terms:
        for atom in mono:
            if atom.kind == "name":
                c *= known[atom.name]
            else:
                a, b = atom.args
                c *= _NUMBERS[atom.kind](evaluate(a, known), evaluate(b, known))
        total += c
    return total


FUNCTIONS: dict[str, Callable[[Size, Size], Size]] = {
    "//": floordiv,
    "%": mod,
    "min": minimum,
    "max": maximum,
}


_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b if b else 0,
    "%": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
}


def _rebuild(size: Size, leaf: Callable[[str], Size]) -> Size:
    if isinstance(size, int):
        return size
    total: list[Size] = []
    for mono, c in size.terms:
        factors: list[Size] = [c]
        for atom in mono:
            if atom.kind == "name":
                factors.append(leaf(atom.name))
            else:
                factors.append(FUNCTIONS[atom.kind](*(_rebuild(a, leaf) for a in atom.args)))
        total.append(mul(*factors))
    return add(*total)


def operand(size: Size) -> str:
    """Its text as an operand of `//` or `%`."""
    text = str(size)
    return text if re.fullmatch(r"\w+", text) else f"({text})"


_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][\w.]*)|(//|[-+*%(),]))")


def term_count(size: Size) -> int:
    """How many it adds up."""
    return 1 if isinstance(size, int) else len(size.terms)


def parse_size(text: str) -> Size:
    """Reads what `str` of a size writes; ValueError says what is wrong."""
    tokens: list[str] = []
    at = 0
    text = text.strip()
    while at < len(text):
        m = _TOKEN.match(text, at)
        if m is None:
            raise ValueError(f"not a size: {text!r}")
        tokens.append(m[1] or m[2] or m[3])
        at = m.end()
    tokens.append("")
    pos = 0

    def take(want: str = "") -> str:
        nonlocal pos
        got = tokens[pos]
        if want and got != want:
            raise ValueError(f"not a size: {text!r} (expected {want!r})")
        pos += 1
        return got

    def factor() -> Size:
        token = take()
        if token == "-":
            return mul(-1, factor())
        if token == "(":
            inner = total()
            take(")")
            return inner
        if token in ("min", "max") and tokens[pos] == "(":
            take("(")
            a = total()
            take(",")
            b = total()
            take(")")
            return FUNCTIONS[token](a, b)
        if token.isdigit():
            return int(token)
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise ValueError(f"not a size: {text!r}")
        return name(token)

    def term() -> Size:
        left = factor()
        while tokens[pos] in ("*", "//", "%"):
            op = take()
            right = factor()
            if op == "*" and term_count(left) * term_count(right) > MOST_TERMS:
                raise ValueError(f"a size of too many terms: {text[:80]!r}")
            left = mul(left, right) if op == "*" else FUNCTIONS[op](left, right)
        return left

    def total() -> Size:
        left = term()
        while tokens[pos] in ("+", "-"):
            left = add(left, term()) if take() == "+" else sub(left, term())
        return left

    result = total()
    if tokens[pos]:
        raise ValueError(f"not a size: {text!r}")
    return result


def known(size: Size) -> int:
    """A size that must be a number."""
    assert isinstance(size, int), f"{size} is not known"
    return size
