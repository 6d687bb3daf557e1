"""The register tiles of the matrix product: C[r, n] (+)= A[r, k] B[k, n] for up to `rows` x `vectors` accumulators.

One function serves every matrix of its dtype: strides and lengths are run-time values and the last vector column is
masked, so the products of a program share their tiles.  Each element of C is one chain of fused multiply-adds over
k in order, which makes the result independent of tile, blocking and thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import at_most
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch, lane_mask, load, splat, store, store_first

VECTORS = 2  # vector columns of the widest tile
AHEAD = 4  # rows of B's panels to fetch ahead into the first-level cache
AHEAD_FAR = 16  # and of B itself, and of panels that were made long ago, which come from memory
# Steps of k in one round of a tile's loop.  Counting, moving pointers and fetching ahead take their share of what a core can issue,
# of which multiply-adds and their loads leave little: one that issues four at a time has 56 places beside the 28 multiply-adds of
# the highest tile, and a round of one step would fill 55.  Another program on the same core may take half of them.
STEPS = 4
_ROW_GROUP = 5  # rows addressed from one pointer, 0 to 4 strides away: x86 scales an index by 1, 2, 4


def tile_name(t: VecType, rows: int, vectors: int, keeps: bool = False) -> str:
    """Without `rows`, the tile of any height."""
    return f"tcc_mk_{t.suffix}_{rows or 'any'}x{vectors}{'_keep' if keeps else ''}"


def tile_rows(target: Target) -> tuple[int, ...]:
    """Row counts of the tiles, falling to 1, so that any number of rows is cut into panels of nearly one height."""
    return (14, 13, 12, 10, 8, 6, 4, 2, 1) if target.registers == 32 else (6, 5, 4, 2, 1)


def steps_in_round(target: Target, small: bool) -> int:
    """Those of a tile's loop; one where its code is to be `small` and the many multiply-adds of a high tile hide most of the rest."""
    return 1 if small and target.registers == 32 else STEPS


def begin_tile(e: Emit, t: VecType, rows: int, vectors: int, keeps: bool = False) -> None:
    e.function(
        f"internal void @{tile_name(t, rows, vectors, keeps)}(ptr noalias readonly %a, i64 %ars, i64 %acs, "
        "ptr noalias readonly %b, i64 %brs, ptr noalias %c, i64 %crs, ptr %next, ptr %stream, i64 %along, i64 %kc, "
        "i64 %cols, i64 %load, ptr noalias %keep, i64 %rows)"
    )


def micro_kernel(
    t: VecType,
    rows: int,
    vectors: int,
    target: Target,
    keeps: bool = False,
    resumes: bool = True,
    ragged: bool = True,
    far: bool = False,
    steps: int = STEPS,
    plain: bool = False,
) -> Emit:
    """LLVM text of `void @tile(a, ars, acs, b, brs, c, crs, next, stream, along, kc, cols, load, keep, rows)`; strides in bytes.

    `cols` is the number of valid columns, more than vectors - 1 full vectors; with `load` != 0 the chains start from C.
    `next` is the place in C of the tile that follows: its rows are fetched one by one, since lines fetched all at once keep B
    waiting.  With AVX-512 in the last steps, for lines fetched sooner would be driven from the first-level cache by B; lower
    tiles, of half as many bytes, in the first, so that lines from the third-level cache have come.  The other steps fetch ahead at `stream`, `along` bytes further each time.  Of vectors that lie across two lines the second is fetched: the tile
    on the left has fetched the first.
    Without AVX-512, or where they are not `ragged`, the rows of B must be readable to the end of the last vector.  What never
    `resumes` takes `load` for 0; B may be `far`, in memory.
    Loads through masks take time that multiply-adds would have: 4 to 6 % of the wide tile's on Intel's.

    A `plain` one has a single loop, and so fetches nothing of C, and stores through masks where CPUs have them, slow ones: half the
    time to compile.

    A tile that `keeps` copies B's rows to `keep` as a panel: the first tile that reads them in memory, where waiting for them is
    hidden behind its arithmetic.
    """
    return _Tile(t, rows, vectors, target, keeps, resumes, ragged, far, steps, plain).write()


class _Tile:
    """Writes `micro_kernel`: the heads of the pointers, then the rounds, then the stores."""

    def __init__(
        self,
        t: VecType,
        rows: int,
        vectors: int,
        target: Target,
        keeps: bool,
        resumes: bool,
        ragged: bool,
        far: bool,
        steps: int,
        plain: bool,
    ) -> None:
        self.t, self.rows, self.vectors, self.target = t, rows, vectors, target
        self.keeps, self.resumes, self.far = keeps, resumes, far
        self.steps, self.plain = steps, plain
        self.early = not target.avx512
        self.step_bytes = t.lanes * t.bytes
        self.e = Emit()
        begin_tile(self.e, t, rows, vectors, keeps)
        self.whole: list[str | None] = [None] * vectors
        # made again where they are needed: without registers of their own they would take what the accumulators need
        self.masks = self._edge() if target.avx512 else self.whole
        self.b_masks = self.masks if ragged else self.whole

    def write(self) -> Emit:
        first = self._resumed() if self.resumes else ["zeroinitializer"] * (self.rows * self.vectors)
        self.strides, heads = self._rows_of_a()
        self.steps_on = ["%acs"] * len(heads) + ["%brs"] + [str(VECTORS * self.step_bytes)] * self.keeps
        starts = [*heads, "%b"] + ["%keep"] * self.keeps
        self.pointers = len(starts)
        self.heads = len(heads)
        self._store(self._all_steps([*starts, *first]))
        self.e.end()
        return self.e

    def _edge(self) -> list[str | None]:
        """The columns' masks."""
        before = (self.vectors - 1) * self.t.lanes
        return [*self.whole[1:], lane_mask(self.e, self.t, self.e.value(f"sub i64 %cols, {before}"))]

    def _places(self, start: str, masks: Sequence[str | None]) -> list[tuple[str, str | None]]:
        """Of the accumulators in C."""
        e, lines = self.e, [start]
        for _ in range(1, self.rows):
            lines.append(e.gep(lines[-1], "%crs"))
        return [(e.gep(line, j * self.step_bytes), masks[j]) for line in lines for j in range(self.vectors)]

    def _resumed(self) -> list[str]:
        """The accumulators at first: C, or zeros."""
        e, t = self.e, self.t
        places = self._places("%c", self.masks) if self.target.avx512 else []
        resume, start, entry = e.label(), e.label(), e.current
        e.branch_if(e.value("icmp ne i64 %load, 0"), resume, start)
        e.at(resume)
        old = [load(e, t, p, m) for p, m in places or self._places("%c", self._edge())]
        e.branch(start)
        e.at(start)
        return [e.value(f"phi {t} [zeroinitializer, %{entry}], [{x}, %{resume}]") for x in old]

    def _rows_of_a(self) -> tuple[list[str], list[str]]:
        """The distances of rows from the pointer of their group, and these pointers."""
        e, rows = self.e, self.rows
        strides = ["", "%ars"] + [e.value(f"mul i64 %ars, {i}") for i in range(2, min(rows, _ROW_GROUP))]
        heads = ["%a"]
        if rows > _ROW_GROUP:
            group = e.value(f"mul i64 %ars, {_ROW_GROUP}")
            for _ in range(_ROW_GROUP, rows, _ROW_GROUP):
                heads.append(e.gep(heads[-1], group))
        return strides, heads

    def _step(self, at: list[str], acc: list[str]) -> None:
        """One k: a vector of B for each column, each element of A by all of them."""
        e, t = self.e, self.t
        bp = at[self.heads]
        b = [load(e, t, e.gep(bp, j * self.step_bytes), self.b_masks[j]) for j in range(self.vectors)]
        rows_ahead = AHEAD_FAR if self.keeps or self.far else AHEAD
        ahead = e.gep(bp, e.value(f"mul i64 %brs, {rows_ahead}"))
        for line in range(0, self.vectors * self.step_bytes, LINE):
            fetch(e, e.gep(ahead, min(line + LINE, self.vectors * self.step_bytes) - 1), 0)
        for j in range(self.vectors if self.keeps else 0):
            store(e, t, b[j], e.gep(at[-1], j * self.step_bytes))
        for i in range(self.rows):
            group, row = divmod(i, _ROW_GROUP)
            p = e.gep(at[group], self.strides[row]) if row else at[group]
            a = splat(e, t, e.value(f"load {t.elem}, ptr {p}, align {t.bytes}"))
            for j in range(self.vectors):
                x = i * self.vectors + j
                acc[x] = e.call(t, f"llvm.fma.{t.suffix}", (t, a), (t, b[j]), (t, acc[x]))

    def _moved(self, p: str, by: str) -> str:
        """The freeze hides the induction from loop strength reduction, which would undo the scaled addresses."""
        return self.e.value(f"freeze ptr {self.e.gep(p, by)}")

    def _run(
        self, count: str, steps: int, fetched: str, pace: str, v: list[str], within: int = 0
    ) -> list[str]:
        """`count` rounds of `steps`, each of which fetches a row at `fetched`, `pace` bytes further than the last."""
        e, t, pointers = self.e, self.t, self.pointers

        def round(_: str, v: list[str]) -> list[str]:
            at, to, acc = v[:pointers], v[pointers], v[pointers + 1 :]
            for line in range(0, self.vectors * self.step_bytes, LINE):
                fetch(e, e.gep(to, min(line + within, self.vectors * self.step_bytes - 1)), 0)
            for _step in range(steps):
                self._step(at, acc)
                at = [self._moved(p, by) for p, by in zip(at, self.steps_on, strict=True)]
            return [*at, self._moved(to, pace), *acc]

        carried = [("ptr", p) for p in [*v[:pointers], fetched]] + [(t, x) for x in v[pointers:]]
        after = e.loop(0, count, 1, round, carried)
        return after[:pointers] + after[pointers + 1 :]

    def _all_steps(self, v: list[str]) -> list[str]:
        """The accumulators after all k: rounds that fetch at `stream`, and about as many steps as rows, which fetch those of `next`."""
        e = self.e
        if self.plain:
            return self._run("%kc", 1, "%stream", "%along", v)[self.pointers :]
        ending = at_most(e, "%kc", str(self.rows))
        rounds = e.value(f"udiv i64 {e.value(f'sub i64 %kc, {ending}')}, {self.steps}")
        rest = e.value(f"sub i64 %kc, {e.value(f'mul i64 {rounds}, {self.steps}')}")
        phases = [(rounds, self.steps, "%stream", "%along", 0), (rest, 1, "%next", "%crs", LINE - 1)]
        for count, steps, fetched, pace, within in reversed(phases) if self.early else phases:
            v = self._run(count, steps, fetched, pace, v, within)
        return v[self.pointers :]

    def _store(self, sums: list[str]) -> None:
        e, t, last = self.e, self.t, self.vectors - 1

        def put(columns: int, masks: Sequence[str | None] = self.whole) -> list[str]:
            """The first vectors of each row; the places of the rows."""
            # they are worked out again, behind a freeze: kept through the loop they would be spilled
            places = self._places(e.value("freeze ptr %c"), masks)
            for i, (x, (p, m)) in enumerate(zip(sums, places, strict=True)):
                if i % self.vectors < columns:
                    store(e, t, x, p, m)
            return [p for p, _ in places]

        def put_whole() -> None:
            put(self.vectors)

        def put_edge() -> None:
            places = put(last)[last :: self.vectors]
            count = e.value(f"sub i64 %cols, {last * t.lanes}")
            store_first(e, t, sums[last :: self.vectors], places, count)

        if self.target.avx512 or self.plain and self.target.avx2:
            put(self.vectors, self.masks if self.target.avx512 else self._edge())
            return
        full = e.value(f"icmp eq i64 %cols, {self.vectors * t.lanes}")
        e.when(full, put_whole)
        e.when(e.value(f"xor i1 {full}, true"), put_edge)
