"""What the loop emitters share: vector positions, loads and stores, evaluation of nodes, accumulators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tcc.codegen import scalar
from tcc.codegen.emit import Emit, VecType, constant_mask, is_number
from tcc.codegen.index import plus, times
from tcc.codegen.kernel import Operand, Slots, memo_sizes
from tcc.codegen.lanes import Lanes
from tcc.codegen.program import EXPENSIVE, Access, Node, Program
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch, gather, quick, spread
from tcc.ir.dims import Size, product
from tcc.ir.types import FLOATS, TOTALS, itemsize
from tcc.runtime import layout

TOGETHER = 4  # vectors of long chains, at 16 registers
PARALLEL_WORK = 160_000  # sixteenths of a cycle that pay for a second thread: microseconds
COST_BITS = 256  # of the vectors that costs are counted for
FUNCTION, WIDE_FUNCTION = (
    2,
    6,
)  # sixteenths of a cycle for each flop of a function, as measured: sin 1.7 and 5.7, tanh 2.7 and 11
WIDE = frozenset(("f64", "i64", "u64"))


class Position(NamedTuple):
    """Some elements of a row: `lanes` from `offset` on, of which `mask` (an i1 vector; "" for all) are live."""

    offset: str
    lanes: int
    mask: str = ""


Memo = dict[Node, str]


class Vectors:
    """Loads and stores of neighbouring elements any stride apart: where they are written, and what sizes are called."""

    def __init__(self, e: Emit, target: Target, size: Callable[[Size], str]) -> None:
        self.e, self.target, self.size = e, target, size

    def load(self, dtype: str, base: str, stride: Size, pos: Position) -> str:
        e, elem = self.e, scalar.memory_elem(dtype)
        if stride == 1 or pos.lanes == 1:
            at = pos.offset if stride == 1 else times(e, pos.offset, self.size(stride))
            return scalar.load(e, self.target, dtype, pos.lanes, e.gep(base, at, elem), pos.mask or None)
        t = VecType(elem, pos.lanes)
        if not pos.mask and isinstance(stride, int) and quick(t, abs(stride)):
            found = spread(e, t, base, pos.offset, stride, scalar.alignment(dtype))
            return scalar.from_memory(e, self.target, dtype, pos.lanes, found)
        step = self.splat(VecType("i64", pos.lanes), self.size(stride))
        offsets = e.value(f"mul <{pos.lanes} x i64> {self.lane_index(pos)}, {step}")
        got = gather(e, t, base, offsets, pos.mask or None, align=scalar.alignment(dtype))
        return scalar.from_memory(e, self.target, dtype, pos.lanes, got)

    def store(self, dtype: str, value: str, base: str, stride: Size, pos: Position) -> None:
        e, elem = self.e, scalar.memory_elem(dtype)
        if stride == 1 or pos.lanes == 1:
            at = pos.offset if stride == 1 else times(e, pos.offset, self.size(stride))
            scalar.store(e, self.target, dtype, pos.lanes, value, e.gep(base, at, elem), pos.mask or None)
            return
        t = VecType(elem, pos.lanes)
        mask = pos.mask or self.all_lanes(pos.lanes)
        pointers, ptrs = self.element_pointers(base, stride, pos, elem)
        stored = scalar.to_memory(e, self.target, dtype, pos.lanes, value)
        e.call(
            "void",
            f"llvm.masked.scatter.{t.suffix}.v{pos.lanes}p0",
            (t, stored),
            (f"{ptrs} align {scalar.alignment(dtype)}", pointers),
            (f"<{pos.lanes} x i1>", mask),
        )

    def element_pointers(self, base: str, stride: Size, pos: Position, elem: str) -> tuple[str, str]:
        e, lanes = self.e, pos.lanes
        index = self.lane_index(pos)
        step = self.splat(VecType("i64", lanes), self.size(stride))
        scaled = e.value(f"mul <{lanes} x i64> {index}, {step}")
        return e.value(f"getelementptr {elem}, ptr {base}, <{lanes} x i64> {scaled}"), f"<{lanes} x ptr>"

    def lane_index(self, pos: Position) -> str:
        """The index of each lane along the row, i64."""
        if pos.lanes == 1:
            return pos.offset
        t = VecType("i64", pos.lanes)
        start = self.splat(t, pos.offset)
        return self.e.value(f"add {t} {start}, {iota(pos.lanes)}")

    def splat(self, t: VecType, value: str) -> str:
        if t.lanes == 1:
            return value
        one = self.e.value(f"insertelement {t} poison, {t.elem} {value}, i64 0")
        return self.e.value(f"shufflevector {t} {one}, {t} poison, <{t.lanes} x i32> zeroinitializer")

    @staticmethod
    def all_lanes(lanes: int) -> str:
        return "<" + ", ".join(["i1 true"] * lanes) + ">" if lanes > 1 else "true"


class Nest(Vectors):
    """The state of one kernel being written: pointers, sizes, and the values of the current row."""

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(Emit(), target, str)
        self.program = program
        self.slots = Slots()
        self.lanes = lanes_of(program, target)
        self.pointers: dict[int, str] = {}
        self.inner = len(program.sizes) - 1
        self.light = program.flops <= 12
        for access in [*program.reads, *program.writes]:
            self.slots.index(Operand(access.slot))
        # the current row
        self.indices: list[str] = []
        self.bases: dict[int, str] = {}
        self.scalars: Memo = {}
        self.splats: Memo = {}

    def vectors_together(self) -> int:
        """Vectors that each operation of the main loop takes: more than one where few registers hold few constants, which several
        vectors share, and long chains that follow each other in the text would wait for each other."""
        long = any(n.varies and n.flops >= EXPENSIVE for n in self.program.nodes)
        dense = all(a.strides[self.inner] in (0, 1) for a in [*self.program.reads, *self.program.writes])
        return TOGETHER if self.lanes > 1 and self.target.registers < 32 and long and dense else 1

    # -- heads -----------------------------------------------------------------------------------------------------

    def begin_body(self, name: str = "body") -> None:
        """Starts the function that handles a range of units, and loads the arguments."""
        self.e.function(
            f"internal void @KERNEL_NAME.{name}(ptr %ctx, ptr noalias %args, i64 %begin, i64 %end, i64 %thread)"
        )
        self.load_arguments()

    def begin_kernel(self) -> None:
        self.e.function("i32 @KERNEL_NAME(ptr %ctx, ptr noalias %args)")
        self.load_arguments()

    def load_arguments(self) -> None:
        self.size = memo_sizes(self.slots, self.e)
        for s in self.program.sizes:
            self.size(s)
        for access in [*self.program.reads, *self.program.writes]:
            self.pointers[access.slot] = self.slots.pointer(self.e, Operand(access.slot))
            for stride in access.strides:
                self.size(stride)
        for node in self.program.nodes:  # here, as one that a branch loads would not be there behind it
            if node.kind == "size":
                self.size(node.value)

    def parallel(self, units: str, cost: str, name: str = "body") -> None:
        """Calls the body over `units`; `cost` is an i64 text, sixteenths of a cycle a unit."""
        e = self.e
        safe = e.value(f"add i64 {cost}, 1")
        share = e.value(f"sdiv i64 {PARALLEL_WORK}, {safe}")
        grain = e.value(f"add i64 {share}, 1")
        e.declare("declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)")
        e.line(
            f"call void @tcc_parallel(ptr %ctx, ptr @KERNEL_NAME.{name}, ptr %args, i64 {units}, i64 {grain})"
        )

    @property
    def element_cost(self) -> int:
        """Sixteenths of a cycle an element, roughly."""
        work = sum(self._cost(n) for n in self.program.nodes if n.varies)
        memory = 2 * (len(self.program.reads) + len(self.program.writes))
        return max(memory, work * COST_BITS // max(self.target.vector_bits, 1)) + 1

    @staticmethod
    def _cost(node: Node) -> int:
        """An operation's part of it, with vectors of `COST_BITS`."""
        wide = any(i.dtype in WIDE for i in [node, *node.inputs])
        if node.flops < EXPENSIVE:
            return node.flops * (2 if wide else 1)
        return node.flops * (WIDE_FUNCTION if wide else FUNCTION)

    def scratch(self) -> str:
        """The thread's scratch memory."""
        e = self.e
        base = e.value(f"load ptr, ptr {e.gep('%ctx', layout.CTX_SCRATCH, 'i64')}")
        step = e.value(f"load i64, ptr {e.gep('%ctx', layout.CTX_SCRATCH_BYTES, 'i64')}")
        return e.gep(base, e.value(f"mul i64 %thread, {step}"))

    # -- addresses -------------------------------------------------------------------------------------------------

    def base(self, access: Access, outer: Sequence[str]) -> str:
        """The address of the row of `access` at the outer indices."""
        offset = "0"
        for axis, index in enumerate(outer):
            offset = plus(self.e, offset, times(self.e, index, self.size(access.strides[axis])))
        return self.e.gep(self.pointers[access.slot], offset, scalar.memory_elem(access.dtype))

    def unravel(self, unit: str, axes: Sequence[int]) -> list[str]:
        """The index along each of `axes` of unit number `unit`, the last axis running fastest."""
        indices: list[str] = []
        for axis in reversed(axes[1:]):
            n = self.size(self.program.sizes[axis])
            indices.append(self.e.value(f"urem i64 {unit}, {n}"))
            unit = self.e.value(f"udiv i64 {unit}, {n}")
        return [unit, *reversed(indices)] if axes else []

    def count(self, axes: Sequence[int]) -> str:
        total = "1"
        for axis in axes:
            total = times(self.e, total, self.size(self.program.sizes[axis]))
        return total

    def tail_mask(self, offset: str, end: str) -> str:
        """Which lanes from `offset` on lie before `end`."""
        lanes = self.lanes
        if lanes == 1:
            return ""
        if is_number(end) and is_number(offset):
            return constant_mask([int(offset) + i < int(end) for i in range(lanes)])
        left = self.e.value(f"sub i64 {end}, {offset}")
        t = VecType("i64", lanes)
        return self.e.value(f"icmp slt {t} {iota(lanes)}, {self.splat(t, left)}")

    # -- values ----------------------------------------------------------------------------------------------------

    def node_type(self, node: Node, lanes: int) -> VecType:
        return VecType(scalar.elem(node.dtype), lanes)

    def apply(self, node: Node, inputs: list[str], lanes: int) -> str:
        """One elementwise op on values already made."""
        assert node.op is not None
        names = node.op.defn.operand_names
        operands = {n: (i.dtype, v) for n, i, v in zip(names, node.inputs, inputs, strict=True)}
        return scalar.emit_scalar(
            self.e, self.target, node.op.defn.scalar, operands, lanes=lanes, result=node.dtype
        )

    def cast(self, dtype: str, value: str, to: str, lanes: int) -> str:
        operands = {"a": (dtype, value)}
        return scalar.emit_scalar(self.e, self.target, "cast(a)", operands, lanes=lanes, result=to)

    def at_point(self, indices: Sequence[str]) -> None:
        """Goes to the row at these outer indices; values of another row are forgotten."""
        self.scalars, self.splats = {}, {}
        self.indices = list(indices)
        for access in [*self.program.reads, *self.program.writes]:
            self.bases[access.slot] = self.base(access, indices)

    def scalar(self, node: Node) -> str:
        """A value that does not vary along the row, made where first asked for."""
        if node not in self.scalars:
            self.scalars[node] = self._scalar(node)
        return self.scalars[node]

    def _scalar(self, node: Node) -> str:
        if node.kind == "param":
            access = read_access(self.program, node)
            return self.load(access.dtype, self.bases[access.slot], 1, Position("0", 1))
        if node.kind == "const":
            return scalar.const(node.dtype, 1, node.value)
        if node.kind == "size":
            return self.size(node.value)
        if node.kind == "index":
            index = self.indices[node.value] if node.value < len(self.indices) else "0"
            return self.cast("i64", index, node.dtype, 1)
        return self.apply(node, [self.scalar(i) for i in node.inputs], 1)

    def splatted(self, node: Node) -> str:
        """The same in every lane."""
        if node not in self.splats:
            self.splats[node] = self._same(node, self.lanes)
        return self.splats[node]

    def _same(self, node: Node, lanes: int) -> str:
        if node.kind == "const":
            return scalar.const(node.dtype, lanes, node.value)
        return self.splat(self.node_type(node, lanes), self.scalar(node))

    def vector(self, node: Node, pos: Position, memo: Memo) -> str:
        """A value at a position; `memo` holds those already made there."""
        if not node.varies and pos.lanes == self.lanes:
            return self.splatted(node)
        if node not in memo and not node.varies:
            memo[node] = self._same(
                node, pos.lanes
            )  # ahead of the loop each vector of it would take a register
        if node not in memo:
            memo[node] = self._varying(node, pos, lambda i: self.vector(i, pos, memo))
        return memo[node]

    def far(self) -> bool:
        """Whether what the kernel reads is known not to fit the second-level cache; where it fits, fetches only cost."""
        bytes: Size = 0
        for a in self.program.reads:
            walked = (n for axis, n in enumerate(self.program.sizes) if a.varies(axis))
            bytes = bytes + product([*walked]) * itemsize(a.dtype)
        return isinstance(bytes, int) and bytes > self.target.l2_bytes

    def fetch(self, access: Access, pos: Position, ahead: int) -> None:
        """The lines `ahead` elements behind a vector, one fetch for each.  A fetch of what is not there does nothing."""
        elem = scalar.memory_elem(access.dtype)
        size = VecType(elem).bytes
        at = self.e.gep(self.bases[access.slot], pos.offset, elem)
        for byte in range(0, pos.lanes * size, LINE):
            fetch(self.e, self.e.gep(at, ahead * size + byte), 0)

    def row_stride(self, access: Access) -> Size:
        """From one element of an operand's row to the next, where the row is read."""
        return access.strides[self.inner]

    def _varying(self, node: Node, pos: Position, get: Callable[[Node], str]) -> str:
        if node.kind == "param":
            access = read_access(self.program, node)
            return self.load(access.dtype, self.bases[access.slot], self.row_stride(access), pos)
        if node.kind == "index":
            return self.cast("i64", self.lane_index(pos), node.dtype, pos.lanes)
        return self.apply(node, [get(i) for i in node.inputs], pos.lanes)


def iota(lanes: int) -> str:
    """0, 1, ... as an operand of i64s."""
    if lanes == 1:
        return "0"
    return "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"


def lanes_of(program: Program, target: Target) -> int:
    """Lanes of the widest float computed with (of the widest integer, if there is none)."""
    kinds = [n.dtype for n in program.nodes if n.kind not in ("index", "size")]
    kinds += [r.dtype for r in program.writes]
    floats = [scalar.register_bytes(d) for d in kinds if d in FLOATS]
    return max(1, target.vector_bits // (8 * max(floats or [itemsize(d) for d in kinds] or [4])))


# -- reductions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """How one reduction adds up: what it is, the dtype of its elements, and the dtype of its total."""

    how: str
    dtype: str
    total: str = ""  # where it is not the one that goes with the elements' dtype

    @property
    def total_dtype(self) -> str:
        """float32 is added up, and multiplied, in float64; halves in float32."""
        usual = TOTALS.get(self.dtype, self.dtype) if self.how in ("sum", "prod") else self.dtype
        return self.total or usual

    @property
    def wide(self) -> Fold:
        """The same over elements of the total's dtype."""
        return Fold(self.how, self.total_dtype, self.total_dtype)

    @property
    def widens(self) -> bool:
        return self.total_dtype != self.dtype

    def total_type(self, lanes: int) -> VecType:
        return VecType(scalar.elem(self.total_dtype), lanes)

    def identity(self, lanes: int) -> str:
        """The total of nothing."""
        return self.total_type(lanes).const(identity_value(self.how, self.total_dtype))

    def neutral(self, lanes: int) -> str:
        """The element that changes no total."""
        return VecType(scalar.elem(self.dtype), lanes).const(identity_value(self.how, self.dtype))

    def add(self, e: Emit, target: Target, total: str, value: str, lanes: int) -> str:
        """The total with an element added."""
        return self.combine(e, target, total, self.widen(e, target, value, lanes), lanes)

    def combine(self, e: Emit, target: Target, a: str, b: str, lanes: int) -> str:
        """Two totals as one; the total of nothing, which no pass would take out of the text, changes none but -0.0."""
        if a == self.identity(lanes) and (a == b or self.how != "sum" or self.total_dtype not in FLOATS):
            return b
        body = {
            "sum": "a + b",
            "prod": "a * b",
            "max": "max(a, b)",
            "min": "min(a, b)",
            "any": "a | b",
            "all": "a & b",
        }
        dtype = self.total_dtype
        operands = {"a": (dtype, a), "b": (dtype, b)}
        return scalar.emit_scalar(e, target, body[self.how], operands, lanes=lanes, result=dtype)

    def widen(self, e: Emit, target: Target, value: str, lanes: int) -> str:
        if not self.widens:
            return value
        return Lanes(e, target, self.dtype, lanes).cast(value, self.total_dtype)

    def across(self, e: Emit, target: Target, value: str, lanes: int) -> str:
        """One value from a vector of totals, halves first; then in the result's dtype."""
        return self.narrow(e, target, self.halved(e, target, value, lanes, 1), 1)

    def halved(self, e: Emit, target: Target, value: str, lanes: int, left: int) -> str:
        """The halves of a vector of totals as one, until so many lanes are left."""
        elem = scalar.elem(self.total_dtype)
        while lanes > left:
            half = lanes // 2
            t = VecType(elem, lanes)
            low = ", ".join(f"i32 {i}" for i in range(half))
            high = ", ".join(f"i32 {i + half}" for i in range(half))
            a = e.value(f"shufflevector {t} {value}, {t} poison, <{half} x i32> <{low}>")
            b = e.value(f"shufflevector {t} {value}, {t} poison, <{half} x i32> <{high}>")
            if half == 1:
                a = e.value(f"extractelement <1 x {elem}> {a}, i64 0")
                b = e.value(f"extractelement <1 x {elem}> {b}, i64 0")
            value = self.combine(e, target, a, b, half)
            lanes = half
        return value

    def narrow(self, e: Emit, target: Target, value: str, lanes: int) -> str:
        if not self.widens:
            return value
        return Lanes(e, target, self.total_dtype, lanes).cast(value, self.dtype)


def identity_value(how: str, dtype: str) -> float | int | bool:
    if how == "sum":
        return 0
    if how == "prod":
        return 1
    if how in ("any", "all"):
        return how == "all"
    if dtype == "bool":
        return how == "min"
    if dtype in FLOATS:
        return float("-inf") if how == "max" else float("inf")
    bits = 8 * itemsize(dtype)
    if dtype.startswith("u"):
        return 0 if how == "max" else -1  # all ones
    return -(1 << (bits - 1)) if how == "max" else (1 << (bits - 1)) - 1


def fold_of(node: Node) -> Fold:
    return Fold(node.how, node.dtype)


def read_access(program: Program, node: Node) -> Access:
    return program.reads[int(node.value)]
