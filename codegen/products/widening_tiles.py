"""The tiles of widening products: C[rows, columns] from rows of A and a panel of B, for each instruction.

    void tile(a, stride, b, sums, c, crs, steps, rows, cols, resume, buffer)

A's rows are `stride` bytes apart, C's `crs`; a step is 32 bits of k.  `rows` and `cols` of the tile exist.  With `resume`, what
C holds is added.  `sums` is where the columns' sums start, `buffer` memory for a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from tcc.codegen.emit import Emit, VecType
from tcc.codegen.index import at_least
from tcc.codegen.target import Target
from tcc.codegen.vectors import lane_mask, load, splat, store

_VECTORS = 2  # of columns in a panel
_ROW_BYTES = 64  # of a matrix register's row: so many of k that a copy is filled up with zeros
_SIDE = 16  # a matrix register has as many rows


@dataclass(frozen=True)
class Form:
    """How products of one dtype are taken.  A panel of B has `width` columns, `depth` of k and stays in the first-level cache."""

    stored: str  # LLVM's type of A's and B's numbers in memory
    narrow: str  # and in their copies
    wide: VecType  # a vector of sums
    instruction: (
        str  # of narrow numbers: sums onto sums, or, where it is for `pairs`, into 32 bits that are added
    )
    matrices: bool  # it multiplies matrices, not vectors
    signed: bool  # A's bytes have to become unsigned by 128 more, so that the sums start from -128 times B's
    heights: tuple[int, ...]  # of tiles, falling
    block_rows: int  # of a unit of work: they pay for its copy of B
    panels: int  # that are copied at a time, so that a copy of A's rows serves them all
    unsigned: bool = False  # whether A's numbers are

    @property
    def step(self) -> int:
        """Numbers in 32 bits."""
        return 4 // VecType(self.narrow).bytes

    @property
    def width(self) -> int:
        return _VECTORS * self.wide.lanes

    @property
    def depth(self) -> int:
        return 256 * self.step

    @property
    def row(self) -> int:
        """Bytes of a panel for each step."""
        return self.width * 4

    @property
    def panel_bytes(self) -> int:
        return self.row * 256

    @property
    def a_row(self) -> int:
        """Bytes of a copied row of A, which do not fall on the cache sets of the next."""
        return 1024 + _ROW_BYTES

    @property
    def row_numbers(self) -> int:
        """Numbers in a row of a matrix register."""
        return _ROW_BYTES // 4 * self.step

    @property
    def padding(self) -> int:
        """Of k: a copy is filled up with zeros to a multiple of it."""
        return self.row_numbers if self.matrices else self.step

    @property
    def pairs(self) -> bool:
        """Whether bytes become int16 in the copies: the sum of two products of them fits int32, which is added to the sums."""
        return self.narrow != self.stored

    @property
    def products_at_once(self) -> int:
        return self.wide.lanes * (8 if self.matrices else 1)

    def narrowed(self, e: Emit, t: VecType, value: str, of_a: bool = False) -> str:
        """A vector `t` of stored numbers as it stands in the copies."""
        if not self.pairs:
            return value
        return e.value(f"{'zext' if of_a and self.unsigned else 'sext'} {t} {value} to {t.of(self.narrow)}")


def form_of(target: Target, dtype: str) -> Form | None:
    """The best form that the target has for rows of A of a dtype (i8 u8 bf16)."""
    halves = dtype == "bf16"
    narrow, wide = ("i16", target.vector("float")) if halves else ("i8", target.vector("i32"))
    if target.matrices(dtype):
        names = {"i8": "tdpbssd", "u8": "tdpbusd", "bf16": "tdpbf16ps"}
        name = f"llvm.x86.{names[dtype]}"
        return Form(narrow, narrow, wide, name, True, False, (2 * _SIDE, _SIDE), 512, 8)
    heights = (12, 4, 1) if target.avx512 else (6, 4, 2, 1)
    bits = 32 * wide.lanes
    if target.bf16_products if halves else target.byte_products:
        name = f"llvm.x86.avx512bf16.dpbf16ps.{bits}" if halves else f"llvm.x86.avx512.vpdpbusd.{bits}"
        return Form(narrow, narrow, wide, name, False, dtype == "i8", heights, 20 * heights[0], 4)
    if halves or not (target.avx512 or target.f16c):  # which is short of AVX2
        return None
    name = "llvm.x86.avx512.pmaddw.d.512" if target.avx512 else "llvm.x86.avx2.pmadd.wd"
    return Form("i8", "i16", wide, name, False, False, heights, 20 * heights[0], 8, dtype == "u8")


def set_tiles(e: Emit) -> None:
    """Makes each matrix register 16 rows of 64 bytes, until they are released."""
    shape = e.value("alloca [64 x i8], align 64")
    e.line(f"store [64 x i8] zeroinitializer, ptr {shape}")
    e.line(f"store i8 1, ptr {shape}")
    t = VecType("i16", 8)
    e.line(f"store {t} {t.const(_ROW_BYTES)}, ptr {e.gep(shape, 16)}, align 16")
    e.line(f"store <8 x i8> {VecType('i8', 8).const(_SIDE)}, ptr {e.gep(shape, 48)}, align 16")
    e.call("void", "llvm.x86.ldtilecfg", ("ptr", shape))


def _begin(e: Emit, height: int) -> None:
    e.function(
        f"internal void @KERNEL_NAME.tile{height}(ptr noalias readonly %a, i64 %stride, ptr noalias readonly %b, "
        "ptr noalias readonly %sums, ptr noalias %c, i64 %crs, i64 %steps, i64 %rows, i64 %cols, i64 %resume, "
        "ptr noalias %buffer)"
    )


def _masks(e: Emit, t: VecType) -> list[str]:
    """The columns that exist, for each vector of the tile."""
    left = [e.value(f"sub i64 %cols, {v * t.lanes}") for v in range(_VECTORS)]
    return [lane_mask(e, t, at_least(e, n, "0")) for n in left]


def vector_tile(e: Emit, f: Form, height: int, target: Target) -> None:
    """The tile of `height` rows by an instruction for vectors."""
    t = f.wide
    _begin(e, height)
    lines = ["%c"]
    for _ in range(1, height):
        lines.append(e.gep(lines[-1], "%crs"))
    masks = _masks(e, t)
    places = [(e.gep(line, v * t.lanes, t.elem), masks[v]) for line in lines for v in range(_VECTORS)]
    resumes = e.value("icmp ne i64 %resume, 0")
    old, start, entry = e.label(), e.label(), e.current
    e.branch_if(resumes, old, start)
    e.at(old)
    values = [load(e, t, p, m) for p, m in places]
    e.branch(start)
    e.at(start)
    first = [e.value(f"phi {t} [zeroinitializer, %{entry}], [{x}, %{old}]") for x in values]
    if f.signed:
        sums = [load(e, t, e.gep("%sums", v * t.lanes, "i32"), masks[v]) for v in range(_VECTORS)]
        first = [e.value(f"add {t} {x}, {sums[i % _VECTORS]}") for i, x in enumerate(first)]

    def step(_: str, v: list[str]) -> list[str]:
        a, b, *acc = v
        columns = [load(e, VecType("i32", t.lanes), e.gep(b, j * t.lanes, "i32")) for j in range(_VECTORS)]
        for r in range(height):
            some = e.value(f"load i32, ptr {e.gep(a, r * f.a_row)}, align 4")
            four = splat(e, VecType("i32", t.lanes), some)
            for j, column in enumerate(columns):
                acc[r * _VECTORS + j] = multiply_add(e, f, acc[r * _VECTORS + j], four, column)
        return [e.gep(a, 4), e.gep(b, f.row), *acc]

    carried: list[tuple[VecType | str, str]] = [("ptr", "%a"), ("ptr", "%b"), *((t, x) for x in first)]
    done = e.loop(0, "%steps", 1, step, carried)[2:]

    def keep(masked: bool) -> None:
        for (place, mask), value in zip(places, done, strict=True):
            store(e, t, value, place, mask if masked else None)

    if target.avx512:
        keep(masked=True)
    else:  # where masks cost
        whole = e.value(f"icmp sge i64 %cols, {f.width}")
        e.when(whole, lambda: keep(masked=False))
        e.when(e.value(f"xor i1 {whole}, true"), lambda: keep(masked=True))
    e.end()


def multiply_add(e: Emit, f: Form, acc: str, a: str, b: str) -> str:
    """acc + the products of the numbers of a and b, which are vectors of i32, in each lane."""
    t = VecType("i32", f.wide.lanes)
    if not f.wide.is_float and not f.pairs:
        return e.call(t, f.instruction, (t, acc), (t, a), (t, b))
    halves = VecType("bfloat" if f.wide.is_float else f.narrow, 2 * t.lanes)
    a, b = (e.value(f"bitcast {t} {x} to {halves}") for x in (a, b))
    if f.pairs:
        return e.value(f"add {t} {acc}, {e.call(t, f.instruction, (halves, a), (halves, b))}")
    return e.call(f.wide, f.instruction, (f.wide, acc), (halves, a), (halves, b))


def matrix_tile(e: Emit, f: Form, height: int) -> None:
    """The tile of up to `height` rows by an instruction for matrices: registers 0 to 3 are sums, 4 and 5 of A, 6 and 7 of B.

    A whole one that starts from 0 goes to C as it is; others are added or cut on the way, in `buffer`.
    """
    t, over = f.wide, range(height // _SIDE)
    _begin(e, height)
    sums = [(r * _VECTORS + v, r, v) for r in over for v in range(_VECTORS)]
    for register, _, _ in sums:
        e.call("void", "llvm.x86.tilezero", ("i8", str(register)))
    below = e.gep("%a", e.value(f"mul i64 %stride, {_SIDE}"))

    def step(_: str, v: list[str]) -> list[str]:
        for r in over:
            _move(e, "tileloadd64", 4 + r, v[r], "%stride")
        for j in range(_VECTORS):
            _move(e, "tileloadd64", 6 + j, e.gep(v[2], j * _ROW_BYTES), str(f.row))
        for register, r, j in sums:
            numbers = (("i8", str(n)) for n in (register, 4 + r, 6 + j))
            e.call("void", f.instruction, *numbers)
        return [e.gep(v[0], _ROW_BYTES), e.gep(v[1], _ROW_BYTES), e.gep(v[2], _SIDE * f.row)]

    e.loop(0, "%steps", _SIDE, step, [("ptr", "%a"), ("ptr", below), ("ptr", "%b")])
    whole = e.value(f"icmp eq i64 %rows, {height}")
    for test in (f"icmp sge i64 %cols, {f.width}", "icmp eq i64 %resume, 0"):
        whole = e.value(f"and i1 {whole}, {e.value(test)}")

    def keep(place: str, stride: str) -> None:
        for register, r, v in sums:
            line = e.gep(place, e.value(f"mul i64 {stride}, {r * _SIDE}"))
            _move(e, "tilestored64", register, e.gep(line, v * _ROW_BYTES), stride)

    def rest() -> None:
        keep("%buffer", str(f.row))
        masks = _masks(e, t)
        resumes = e.value("icmp ne i64 %resume, 0")
        nothing = VecType("i1", t.lanes).const(False)
        old = [e.value(f"select i1 {resumes}, {t.of('i1')} {m}, {t.of('i1')} {nothing}") for m in masks]

        def line(_: str, at: list[str]) -> list[str]:
            for v in range(_VECTORS):
                made, place = load(e, t, e.gep(at[0], v * t.lanes, t.elem)), e.gep(at[1], v * t.lanes, t.elem)
                plus = "fadd" if t.is_float else "add"
                both = e.value(f"{plus} {t} {made}, {load(e, t, place, old[v])}")
                store(e, t, both, place, masks[v])
            return [e.gep(at[0], f.row), e.gep(at[1], "%crs")]

        e.loop(0, "%rows", 1, line, [("ptr", "%buffer"), ("ptr", "%c")])

    e.when(whole, lambda: keep("%c", "%crs"))
    e.when(e.value(f"xor i1 {whole}, true"), rest)
    e.end()


def _move(e: Emit, instruction: str, register: int, place: str, stride: str) -> None:
    e.call(
        "void",
        f"llvm.x86.{instruction}",
        ("i8", str(register)),
        ("ptr", place),
        ("i64", stride),
    )
