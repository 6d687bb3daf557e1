"""Integer arithmetic in text that folds what is known: an operand is a Python int or the text of an i64.

`Index` decides by what is known; `plus`, `times`, `at_most` and `at_least` are for text that goes into text.  Nothing is computed twice in
one block.
"""

from __future__ import annotations

from tcc.codegen.emit import Emit

Size = int | str


def known(a: Size) -> Size:
    """The int that a text spells, such as the index of a loop's only round; else the name of a value."""
    return int(a) if isinstance(a, str) and a[0] != "%" else a


def plus(e: Emit, a: Size, b: Size) -> str:
    return str(Index(e).add(a, b))


def times(e: Emit, a: Size, b: Size) -> str:
    return str(Index(e).mul(a, b))


def at_most(e: Emit, a: Size, b: Size) -> str:
    """The smaller one."""
    return str(Index(e).min(a, b))


def at_least(e: Emit, a: Size, b: Size) -> str:
    """The larger one."""
    return str(Index(e).max(a, b))


class Index:
    """Writes i64 arithmetic to an Emit; results are ints where both sides are known.  What is divided is not negative."""

    def __init__(self, e: Emit) -> None:
        self.e = e

    def add(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        return self.e.once(f"add nsw i64 {a}, {b}")

    def sub(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if a == b:
            return 0
        return a if b == 0 else self.e.once(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self.e.once(f"mul nsw i64 {a}, {b}")

    def div(self, a: Size, b: Size) -> Size:
        """Rounded down; what is divided by 0 is never used."""
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return a // b if b else 0
        return a if b == 1 else self.e.once(f"udiv i64 {a}, {b}")

    def ceil_div(self, a: Size, b: Size) -> Size:
        return self.div(self.add(a, self.sub(b, 1)), b)

    def round_up(self, a: Size, step: int) -> Size:
        return self.mul(self.ceil_div(a, step), step)

    def round_down(self, a: Size, step: int) -> Size:
        """To a multiple of a power of two."""
        a = known(a)
        return a & -step if isinstance(a, int) else self.e.once(f"and i64 {a}, {-step}")

    def min(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        return min(a, b) if isinstance(a, int) and isinstance(b, int) else self._call("smin", a, b)

    def max(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        return max(a, b) if isinstance(a, int) and isinstance(b, int) else self._call("smax", a, b)

    def _call(self, name: str, a: Size, b: Size) -> str:
        self.e.declare(f"declare i64 @llvm.{name}.i64(i64, i64)")
        return self.e.once(f"call i64 @llvm.{name}.i64(i64 {a}, i64 {b})")

    def less(self, a: Size, b: Size) -> Size:
        """1 where a < b, else 0: conditions are sizes too, `both` joins them, `pick` chooses by them."""
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return int(a < b)
        return self.e.once(f"zext i1 {self.e.once(f'icmp slt i64 {a}, {b}')} to i64")

    def equal(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        if isinstance(a, int) and isinstance(b, int):
            return int(a == b)
        return self.e.once(f"zext i1 {self.e.once(f'icmp eq i64 {a}, {b}')} to i64")

    def both(self, a: Size, b: Size) -> Size:
        a, b = known(a), known(b)
        if a == 0 or b == 0:
            return 0
        if isinstance(a, int) or isinstance(b, int):
            return b if isinstance(a, int) else a
        return self.e.once(f"and i64 {a}, {b}")

    def either(self, a: Size, b: Size) -> Size:
        return self.sub(1, self.both(self.sub(1, a), self.sub(1, b)))

    def pick(self, cond: Size, a: Size, b: Size) -> Size:
        if isinstance(cond, int):
            return a if cond else b
        if a == b:
            return a
        return self.e.once(f"select i1 {self.e.once(f'icmp ne i64 {cond}, 0')}, i64 {a}, i64 {b}")
