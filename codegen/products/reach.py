"""What the plans of a product can come to, over all values of its sizes that are not known: a library's engine is made of that.

The cost model is written over `Index`; here its operands are what a size may be, as far as it takes to tell which choices occur.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.plan import choose_form, plan
from tcc.codegen.products.record import ROW, ROW_PANELS, TILES, Reach
from tcc.codegen.target import Target

_MOST = 1 << 62
_FEW = 16  # values that are told apart
_MANY = 100  # vectors of columns of which one half full costs nothing


class Values(NamedTuple):
    """All from `least` to `most`; only `few` of these where it is not None."""

    least: int
    most: int
    few: frozenset[int] | None = None


class Possible(Index):
    """Index over sets of values: a name stands for one of `values`."""

    def __init__(self) -> None:
        super().__init__(Emit())
        self.values: dict[str, Values] = {}

    def anything(self) -> Size:
        return self._name(Values(0, _MOST))

    def of(self, size: Size) -> Values:
        return Values(size, size, frozenset({size})) if isinstance(size, int) else self.values[size]

    def those(self, size: Size) -> frozenset[int]:
        """The values of what is chosen among a few."""
        few = self.of(size).few
        assert few is not None
        return few

    def add(self, a: Size, b: Size) -> Size:
        return self._each(a, b, lambda x, y: x + y, lambda x, y: (x.least + y.least, x.most + y.most))

    def sub(self, a: Size, b: Size) -> Size:
        return self._each(a, b, lambda x, y: x - y, lambda x, y: (x.least - y.most, x.most - y.least))

    def mul(self, a: Size, b: Size) -> Size:
        return self._each(a, b, lambda x, y: x * y, lambda x, y: (x.least * y.least, x.most * y.most))

    def div(self, a: Size, b: Size) -> Size:
        def ends(x: Values, y: Values) -> tuple[int, int]:
            return x.least // max(y.most, 1), x.most // max(y.least, 1)

        return self._each(a, b, lambda x, y: x // max(y, 1), ends)

    def min(self, a: Size, b: Size) -> Size:
        return self._each(a, b, min, lambda x, y: (min(x.least, y.least), min(x.most, y.most)))

    def max(self, a: Size, b: Size) -> Size:
        return self._each(a, b, max, lambda x, y: (max(x.least, y.least), max(x.most, y.most)))

    def less(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return int(a < b)
        x, y = self.of(a), self.of(b)
        return 1 if x.most < y.least else 0 if x.least >= y.most else self._either(0, 1)

    def equal(self, a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return int(a == b)
        x, y = self.of(a), self.of(b)
        return 0 if x.most < y.least or y.most < x.least else self._either(0, 1)

    def both(self, a: Size, b: Size) -> Size:
        return self.min(a, b)

    def pick(self, cond: Size, a: Size, b: Size) -> Size:
        return (a if cond else b) if isinstance(cond, int) else self._either(a, b)

    def _either(self, a: Size, b: Size) -> Size:
        x, y = self.of(a), self.of(b)
        few = None if x.few is None or y.few is None else x.few | y.few
        return self._name(Values(min(x.least, y.least), max(x.most, y.most), few))

    def _each(
        self,
        a: Size,
        b: Size,
        exact: Callable[[int, int], int],
        ends: Callable[[Values, Values], tuple[int, int]],
    ) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return exact(a, b)
        x, y = self.of(a), self.of(b)
        if x.few is not None and y.few is not None and len(x.few) * len(y.few) <= _FEW:
            few = frozenset(exact(p, q) for p, q in itertools.product(x.few, y.few))
            return self._name(Values(min(few), max(few), few))
        least, most = ends(x, y)
        return self._name(Values(max(least, 0), min(most, _MOST)))

    def _name(self, values: Values) -> Size:
        if values.least == values.most:
            return values.least
        name = f"v{len(self.values)}"
        self.values[name] = values
        return name


def reach(
    t: VecType,
    target: Target,
    known: Mapping[str, int | None],
    fused: bool,
    panels: bool = False,
    accumulate: bool = False,
) -> Reach:
    """What products may need, by one thread, of such sizes and strides (in elements); None is any.  With `panels` B is such."""
    x = Possible()
    sizes = {name: x.anything() if value is None else value for name, value in known.items()}
    form, seen = choose_form(t, x, sizes, fused, panels)
    forms = x.those(form["form"])
    packs_a, packs_b, resume = set[int](), set[int](), accumulate
    for one in forms - {ROW, ROW_PANELS}:
        chosen = plan(t, target, x, seen, form | {"form": one}, panels)
        packs_b |= x.those(chosen["pack_b"])
        if one == TILES:
            packs_a |= x.those(chosen["pack_a"])
            resume = resume or x.of(chosen["kc_most"]).least < x.of(seen["k"]).most
    batch, narrow = known["batch"] != 1, _narrow(t, seen["n"])
    ragged = not panels and _ragged(t, seen["n"], narrow)
    return Reach(
        forms, frozenset(packs_a), frozenset(packs_b), False, batch, narrow, resume, ragged, small=True
    )


def _ragged(t: VecType, n: Size, narrow: bool) -> bool:
    """Whether a tile of several vectors may stand where B's last columns do not fill them."""
    rest = n % (VECTORS * t.lanes) if isinstance(n, int) else t.lanes + 1
    return rest > (t.lanes if narrow else 0)


def _narrow(t: VecType, n: Size) -> bool:
    """Whether the last columns are worth a tile of one vector: not where the wide one takes as much time, or hardly more."""
    if not isinstance(n, int):
        return True
    rest = n % (VECTORS * t.lanes)
    return 0 < rest < t.lanes or (rest == t.lanes and n < _MANY * t.lanes)
