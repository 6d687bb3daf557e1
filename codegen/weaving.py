"""Maps and copies whose results have short rows, one behind the other: vectors hold several rows, a row's end and the next one's
begin in the same one.

A round takes as many rows as a vector has lanes, whose elements are as many vectors as a row has elements.  What does not vary along
rows is made once for each row, and its lanes are repeated.  An operand lies as the results do, is the same for all rows, or has a
vector of rows for each element of a row, which are woven: interleaved by shuffles.  So repeated elements, stacked columns, pixels
whose channels come to lie side by side and narrow matrices with a row or column added are read and written in whole vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.emit import VecType
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.kernel import Kernel, finish
from tcc.codegen.nest import Nest, Position, lanes_of, read_access
from tcc.codegen.program import Access, Node, Program
from tcc.codegen.scalar import memory_elem
from tcc.codegen.target import Target
from tcc.codegen.vectors import quick
from tcc.ir.types import COMPLEX, itemsize

LONGEST = 16  # elements of a row
MOST_FLOPS = 256  # of a lane in a round's straight-line text
STRETCH = 1024  # rows of a unit of parallel work


def weaves(program: Program, target: Target) -> bool:
    """Whether a map's results have short rows that do not fill vectors and lie one behind the other."""
    if len(program.sizes) < 2 or program.row or any(program.reduced) or not program.reads:
        return False
    rows, length = program.sizes[-2:]
    lanes = lanes_of(program, target)
    if (
        not isinstance(length, int)
        or not 2 <= length <= LONGEST
        or length % lanes == 0
        or length >= 2 * lanes
    ):
        return False
    if lanes == 1 or (isinstance(rows, int) and rows < 4 * lanes) or length * program.flops > MOST_FLOPS:
        return False
    if any(a.dtype in COMPLEX for a in [*program.reads, *program.writes]):
        return False
    dense = all(a.strides[-2:] == (length, 1) for a in program.writes)
    return dense and all(_readable(a, length) for a in program.reads)


def _readable(access: Access, length: int) -> bool:
    """Whether vectors of an operand's elements, or of its rows, come from a run of memory."""
    across, along = access.strides[-2:]
    if across in (0, 1) or (across == length and along in (0, 1)):
        return True
    t = VecType(f"i{8 * itemsize(access.dtype)}", 2)
    return along != 1 and isinstance(across, int) and quick(t, abs(across))


def weaving_kernel(program: Program, target: Target) -> Kernel:
    return _Weaving(program, target).kernel()


class _Weaving(Nest):
    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, target)
        length = program.sizes[-1]
        assert isinstance(length, int)
        self.length, self.across = length, self.inner - 1
        self.by_row = self._varying_by_row()
        self.made: dict[Node, str] = {}  # of the round's rows
        self.woven: dict[Node, list[str]] = {}  # of their elements
        self.periodic: dict[Node, list[str]] = {}  # the same in each round

    def _varying_by_row(self) -> set[Node]:
        found: set[Node] = set()
        for node in self.program.nodes:
            if node.kind == "param":
                varies = read_access(self.program, node).varies(self.across)
            elif node.kind == "index":
                varies = node.value == self.across
            else:
                varies = any(i in found for i in node.inputs)
            if varies:
                found.add(node)
        return found

    def kernel(self) -> Kernel:
        e, above = self.e, range(self.across)
        self.begin_body()
        rows, stretches = self.size(self.program.sizes[self.across]), self.stretches()

        def unit(u: str, _: list[str]) -> None:
            outer = self.unravel(e.value(f"udiv i64 {u}, {stretches}"), above) if above else []
            number = e.value(f"urem i64 {u}, {stretches}") if above else u
            first = times(e, number, str(STRETCH))
            self.stretch(outer, first, at_most(e, plus(e, first, str(STRETCH)), rows))

        e.loop("%begin", "%end", 1, unit)
        e.end()
        self.begin_kernel()
        units = times(e, self.count(above), self.stretches())
        self.parallel(units, str(STRETCH * self.length * self.element_cost))
        e.end("i32 0")
        return finish(e, tuple(self.slots.slots), "map")

    def stretches(self) -> str:
        up = plus(self.e, self.size(self.program.sizes[self.across]), str(STRETCH - 1))
        return self.e.value(f"sdiv i64 {up}, {STRETCH}")

    def stretch(self, outer: Sequence[str], first: str, last: str) -> None:
        e = self.e
        self.at_point([*outer, "0"])
        self.periodic = {}
        for node in self.program.nodes:
            if not node.varies and node not in self.by_row:
                self.splatted(node)
            elif node not in self.by_row and node.kind in ("param", "index"):
                self.periodic[node] = self.period(node)
        whole = plus(e, first, e.value(f"and i64 {e.value(f'sub i64 {last}, {first}')}, {-self.lanes}"))
        e.loop(first, whole, self.lanes, lambda row, _: self.round(row))

        def single(row: str, _: list[str]) -> None:
            self.at_point([*outer, row])
            e.loop(0, self.length, 1, lambda i, _: self.element(i))

        e.loop(whole, last, 1, single)

    def element(self, i: str) -> None:
        pos, memo = Position(i, 1), dict[Node, str]()
        values = [self.vector(node, pos, memo) for node in self.program.results]
        for access, value in zip(self.program.writes, values, strict=True):
            self.store(access.dtype, value, self.bases[access.slot], 1, pos)

    def round(self, row: str) -> None:
        self.made, self.woven = {}, {}
        results = [self.elements(node, row) for node in self.program.results]
        for access, values in zip(self.program.writes, results, strict=True):
            for v, value in enumerate(values):
                self.store(access.dtype, value, self.bases[access.slot], 1, self.place(row, v))

    def place(self, row: str, v: int) -> Position:
        """Of the round's vector number `v` where rows lie one behind the other."""
        at = plus(self.e, times(self.e, row, str(self.length)), str(v * self.lanes))
        return Position(at, self.lanes)

    # -- values -----------------------------------------------------------------------------------------------------

    def of_rows(self, node: Node, row: str) -> str:
        """A value that does not vary along rows, of each row of the round."""
        if node not in self.by_row:
            return self.splatted(node)
        if node not in self.made:
            self.made[node] = self._of_rows(node, Position(row, self.lanes))
        return self.made[node]

    def _of_rows(self, node: Node, rows: Position) -> str:
        if node.kind == "param":
            access = read_access(self.program, node)
            return self.load(access.dtype, self.bases[access.slot], access.strides[self.across], rows)
        if node.kind == "index":
            return self.cast("i64", self.lane_index(rows), node.dtype, rows.lanes)
        return self.apply(node, [self.of_rows(i, rows.offset) for i in node.inputs], rows.lanes)

    def elements(self, node: Node, row: str) -> list[str]:
        """A value's vectors, one for each element of a row."""
        if node in self.periodic:
            return self.periodic[node]
        if node not in self.woven:
            self.woven[node] = self._elements(node, row)
        return self.woven[node]

    def _elements(self, node: Node, row: str) -> list[str]:
        if not node.varies:
            value = self.of_rows(node, row)
            return self.repeated(node, value) if node in self.by_row else [value] * self.length
        if node.kind == "param":
            return self.param(node, row)
        inputs = [self.elements(i, row) for i in node.inputs]
        return [self.apply(node, list(of_vector), self.lanes) for of_vector in zip(*inputs, strict=True)]

    def param(self, node: Node, row: str) -> list[str]:
        access = read_access(self.program, node)
        base, (across, along) = self.bases[access.slot], access.strides[-2:]
        if (across, along) == (self.length, 1):
            places = [self.place(row, v) for v in range(self.length)]
            return [self.load(access.dtype, base, 1, place) for place in places]
        rows = Position(row, self.lanes)
        columns = [
            self.load(access.dtype, self.column(access, str(k)), across, rows) for k in range(self.length)
        ]
        return self.interleaved(self.node_type(node, self.lanes), columns)

    def column(self, access: Access, k: str) -> str:
        """The address of element `k` of row 0."""
        offset = times(self.e, k, self.size(access.strides[self.inner]))
        return self.e.gep(self.bases[access.slot], offset, memory_elem(access.dtype))

    def period(self, node: Node) -> list[str]:
        """The vectors of what hangs on the place in a row alone."""
        t = self.node_type(node, self.lanes)
        if node.kind == "index":
            wide = VecType("i64", self.lanes)
            return [self.cast("i64", text, node.dtype, self.lanes) for text in self.counted(wide)]
        access, one = read_access(self.program, node), Position("0", 1)
        each = [self.load(access.dtype, self.column(access, str(k)), 1, one) for k in range(self.length)]
        return self.interleaved(t, [self.splat(t, x) for x in each])

    def counted(self, t: VecType) -> list[str]:
        """The place in its row of each lane, as constants."""
        return [
            "<" + ", ".join(f"{t.elem} {(v * t.lanes + i) % self.length}" for i in range(t.lanes)) + ">"
            for v in range(self.length)
        ]

    # -- shuffles ---------------------------------------------------------------------------------------------------

    def repeated(self, node: Node, value: str) -> list[str]:
        """Of each row its value as often as it has elements."""
        t, lanes = self.node_type(node, self.lanes), self.lanes
        return [
            self.shuffled(t, value, "poison", [(v * lanes + i) // self.length for i in range(lanes)])
            for v in range(self.length)
        ]

    def interleaved(self, t: VecType, columns: list[str]) -> list[str]:
        """The first element of each column, then the second ones, and so on."""
        count, lanes = len(columns), t.lanes
        if count == 1:
            return columns
        if count % 2 == 0:
            pairs = zip(self.interleaved(t, columns[::2]), self.interleaved(t, columns[1::2]), strict=True)
            halves = ([h + i // 2 + lanes * (i % 2) for i in range(lanes)] for h in (0, lanes // 2))
            low, high = halves
            return [
                made for a, b in pairs for made in (self.shuffled(t, a, b, low), self.shuffled(t, a, b, high))
            ]
        woven = []
        for v in range(count):
            got = "poison"
            for k, column in enumerate(columns):
                sources = [divmod(v * lanes + i, count) for i in range(lanes)]
                order = [lanes + at if of == k else i for i, (at, of) in enumerate(sources)]
                got = self.shuffled(t, got, column, order)
            woven.append(got)
        return woven

    def shuffled(self, t: VecType, a: str, b: str, lanes: Sequence[int]) -> str:
        index = ", ".join(f"i32 {k}" for k in lanes)
        return self.e.value(f"shufflevector {t} {a}, {t} {b}, <{t.lanes} x i32> <{index}>")
