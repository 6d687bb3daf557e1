"""The register tiles of the matrix product: C[r, n] (+)= A[r, k] B[k, n] for up to `rows` x `vectors` accumulators.

One function serves every matrix of its dtype: strides and lengths are run-time values and the last vector column is
masked, so the products of a program share their tiles.  Each element of C is one chain of fused multiply-adds over
k in order, which makes the result independent of tile, blocking and thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch, lane_mask, load, splat, store, store_first

VECTORS = 2  # vector columns of the widest tile
AHEAD = 4  # rows of B's panels to fetch ahead into the first-level cache
AHEAD_FAR = 16  # and of B itself, and of panels that were made long ago, which come from memory
_BESIDE = 10  # instructions of a step that are neither its multiply-adds nor their loads
_ROW_GROUP = 5  # rows addressed from one pointer, 0 to 4 strides away: x86 scales an index by 1, 2, 4


def tile_name(t: VecType, rows: int, vectors: int, keeps: bool = False) -> str:
    """Without `rows`, the tile of any height."""
    return f"tcc_mk_{t.suffix}_{rows or 'any'}x{vectors}{'_keep' if keeps else ''}"


def tile_rows(target: Target) -> tuple[int, ...]:
    """Row counts of the tiles, falling to 1, so that any number of rows is cut into panels of nearly one height."""
    return (14, 13, 12, 10, 8, 6, 4, 2, 1) if target.registers == 32 else (6, 5, 4, 2, 1)


def steps_at_once(target: Target) -> int:
    """Steps of k in one round of a tile's loop, a power of two.

    Counting, moving pointers and fetching ahead take their share of what a core can issue, of which another program on the
    same core may leave half.  Tiles of few registers do not hide that: their rounds are as long as it takes to make it
    little beside the multiply-adds.
    """
    adds, steps = tile_rows(target)[0] * VECTORS, 1
    while 8 * _BESIDE > 3 * adds * steps:
        steps *= 2
    return steps


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
) -> Emit:
    """LLVM text of `void @tile(a, ars, acs, b, brs, c, crs, next, stream, along, kc, cols, load, keep, rows)`; strides in bytes.

    `cols` is the number of valid columns, more than vectors - 1 full vectors; with `load` != 0 the chains start from C.
    `next` is the place in C of the tile that follows: its rows are fetched one by one in the last steps, for lines fetched
    sooner would be driven from the first-level cache by B, and lines fetched all at once keep B waiting.  The steps before
    fetch ahead at `stream`, `along` bytes further each time.
    Without AVX-512, or where they are not `ragged`, the rows of B must be readable to the end of the last vector.  What never
    `resumes` takes `load` for 0; B may be `far`, in memory.
    Loads through masks take time that multiply-adds would have: 4 to 6 % of the wide tile's on Intel's.

    A tile that `keeps` copies B's rows to `keep` as a panel: the first tile that reads them in memory, where waiting for them is
    hidden behind its arithmetic.
    """
    e, at_once = Emit(), steps_at_once(target)
    begin_tile(e, t, rows, vectors, keeps)
    whole: list[str | None] = [None] * vectors
    step_bytes = t.lanes * t.bytes

    def edge() -> list[str | None]:
        """The columns' masks."""
        return [*whole[1:], lane_mask(e, t, e.value(f"sub i64 %cols, {(vectors - 1) * t.lanes}"))]

    # made again where they are needed: without registers of their own they would take what the accumulators need
    masks = edge() if target.avx512 else whole
    b_masks = masks if ragged else whole

    def tile(start: str, masks: Sequence[str | None]) -> list[tuple[str, str | None]]:
        lines = [start]
        for _ in range(1, rows):
            lines.append(e.gep(lines[-1], "%crs"))
        return [(e.gep(line, j * step_bytes), masks[j]) for line in lines for j in range(vectors)]

    first = ["zeroinitializer"] * (rows * vectors)
    if resumes:
        places = tile("%c", masks) if target.avx512 else []
        resume, start, entry = e.label(), e.label(), e.current
        e.branch_if(e.value("icmp ne i64 %load, 0"), resume, start)
        e.at(resume)
        old = [load(e, t, p, m) for p, m in places or tile("%c", edge())]
        e.branch(start)
        e.at(start)
        first = [e.value(f"phi {t} [zeroinitializer, %{entry}], [{x}, %{resume}]") for x in old]

    strides = ["", "%ars"] + [e.value(f"mul i64 %ars, {i}") for i in range(2, min(rows, _ROW_GROUP))]
    heads = ["%a"]
    if rows > _ROW_GROUP:
        group = e.value(f"mul i64 %ars, {_ROW_GROUP}")
        for _ in range(_ROW_GROUP, rows, _ROW_GROUP):
            heads.append(e.gep(heads[-1], group))

    def step(at: list[str], acc: list[str]) -> None:
        bp = at[len(heads)]
        b = [load(e, t, e.gep(bp, j * step_bytes), b_masks[j]) for j in range(vectors)]
        ahead = e.gep(bp, e.value(f"mul i64 %brs, {AHEAD_FAR if keeps or far else AHEAD}"))
        for line in range(0, vectors * step_bytes, LINE):
            fetch(e, e.gep(ahead, line), 0)
        for j in range(vectors if keeps else 0):
            store(e, t, b[j], e.gep(at[-1], j * step_bytes))
        for i in range(rows):
            group, row = divmod(i, _ROW_GROUP)
            p = e.gep(at[group], strides[row]) if row else at[group]
            a = splat(e, t, e.value(f"load {t.elem}, ptr {p}, align {t.bytes}"))
            for j in range(vectors):
                x = i * vectors + j
                acc[x] = e.call(t, f"llvm.fma.{t.suffix}", (t, a), (t, b[j]), (t, acc[x]))

    steps_on = ["%acs"] * len(heads) + ["%brs"] + [str(VECTORS * step_bytes)] * keeps
    starts = [*heads, "%b"] + ["%keep"] * keeps
    pointers = len(starts)

    def moved(p: str, by: str) -> str:
        """The freeze hides the induction from loop strength reduction, which would undo the scaled addresses."""
        return e.value(f"freeze ptr {e.gep(p, by)}")

    def run(count: str, steps: int, fetched: str, pace: str, v: list[str]) -> list[str]:
        """`count` rounds, each of which fetches a row at `fetched`, `pace` bytes further than the last."""

        def round(_: str, v: list[str]) -> list[str]:
            at, to, acc = v[:pointers], v[pointers], v[pointers + 1 :]
            for j in range(vectors):
                fetch(e, e.gep(to, j * step_bytes), 0)
            for _step in range(steps):
                step(at, acc)
                at = [moved(p, by) for p, by in zip(at, steps_on, strict=True)]
            return [*at, moved(to, pace), *acc]

        carried = [("ptr", p) for p in [*v[:pointers], fetched]] + [(t, x) for x in v[pointers:]]
        after = e.loop(0, count, 1, round, carried)
        return after[:pointers] + after[pointers + 1 :]

    ending = e.call("i64", "llvm.smin.i64", ("i64", "%kc"), ("i64", str(rows)))
    before = e.value(f"sub i64 %kc, {ending}")
    done = [*starts, *first]
    if at_once == 1:  # the text of a step stands here once

        def phase(number: str, v: list[str]) -> list[str]:
            last = e.value(f"icmp ne i64 {number}, 0")
            count, at, pace = (
                e.value(f"select i1 {last}, {kind} {then}, {kind} {first}")
                for kind, then, first in (
                    ("i64", ending, before),
                    ("ptr", "%next", "%stream"),
                    ("i64", "%crs", "%along"),
                )
            )
            return run(count, 1, at, pace, v)

        kinds: list[VecType | str] = ["ptr"] * pointers + [t] * len(first)
        done = e.loop(0, 2, 1, phase, list(zip(kinds, done)))
    else:
        rounds = e.value(f"udiv i64 {before}, {at_once}")
        done = run(rounds, at_once, "%stream", "%along", done)
        done = run(
            e.value(f"sub i64 %kc, {e.value(f'mul i64 {rounds}, {at_once}')}"), 1, "%next", "%crs", done
        )

    def put(columns: int, masks: Sequence[str | None] = whole) -> list[str]:
        """The first vectors of each row; the places of the rows."""
        # they are worked out again, behind a freeze: kept through the loop they would be spilled
        places = tile(e.value("freeze ptr %c"), masks)
        for i, (x, (p, m)) in enumerate(zip(done[pointers:], places, strict=True)):
            if i % vectors < columns:
                store(e, t, x, p, m)
        return [p for p, _ in places]

    def put_whole() -> None:
        put(vectors)

    def put_edge() -> None:
        last = vectors - 1
        places = put(last)[last::vectors]
        count = e.value(f"sub i64 %cols, {last * t.lanes}")
        store_first(e, t, done[pointers + last :: vectors], places, count)

    if target.avx512:
        put(vectors, masks)
    else:
        full = e.value(f"icmp eq i64 %cols, {vectors * t.lanes}")
        e.when(full, put_whole)
        e.when(e.value(f"xor i1 {full}, true"), put_edge)
    e.end()
    return e
