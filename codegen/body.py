"""A function's body being written: the memory that it takes on its way, and its sizes."""

from __future__ import annotations

from collections.abc import Sequence

from tcc.codegen.emit import Emit
from tcc.codegen.entry import TYPENUMS
from tcc.codegen.kernel import bytes_text, size_text
from tcc.codegen.placed import LATE_SIZE, makers, space_of
from tcc.codegen.support import DECLARATIONS
from tcc.ir import dims
from tcc.ir.core import Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.types import Type
from tcc.runtime.arenas import Claim
from tcc.runtime.layout import STATUS_PYTHON


class Body:
    """`pointers` are the addresses of places; `claims` say what memory is for, should there be too little."""

    ctx: str
    arena: str

    def __init__(self, func: Func) -> None:
        self.func, self.e = func, Emit()
        self.pointers: dict[Value, str] = {}
        self.names: dict[str, str] = {}  # size name -> its text
        self.sizes: dict[Size, str] = {}  # worked out in the function's own block
        self.depth = 0
        self.late_arenas: dict[int, str] = {}  # number -> its address
        self.claims: list[Claim] = []
        self.entry_claims: list[Claim] = []
        self.makers = makers(func)

    def leave_unless_ok(self, status: str) -> None:
        e = self.e
        bad = e.value(f"icmp ne i32 {status}, 0")
        leave, stay = e.label(), e.label()
        e.branch_if(bad, leave, stay)
        e.at(leave)
        e.line(f"ret i32 {status}")
        e.at(stay)

    def bytes(self, size: Size) -> str:
        return bytes_text(self.e, size, self.names)

    def size(self, size: Size) -> str:
        if isinstance(size, int):
            return str(size)
        if self.depth == 0:
            if size not in self.sizes:
                self.sizes[size] = size_text(self.e, size, self.names)
            return self.sizes[size]
        return self.sizes.get(size) or size_text(self.e, size, self.names)

    # -- memory --------------------------------------------------------------------------------------------------------

    def alloc(self, op: Op) -> None:
        e, t = self.e, op.result.type
        if space_of(op.result) == "output":
            self.make_output(op)
            return
        if space_of(op.result) == "late":
            self.pointers[op.result] = self.late(op, t)
            return
        self.pointers[op.result] = e.gep(self.arena, self.size(op.attrs["offset"]))

    def late(self, op: Op, t: Type) -> str:
        """Memory whose size is known only now: in the late arena that it was planned into, or, in a loop, on its own."""
        e = self.e
        if op.attrs["offset"] is None:
            return self.late_alloc(t.bytes, [self.purpose(op.result)])
        number = int(op.attrs["arena"])
        if number not in self.late_arenas:
            tenants = [o for o in self.func.body.ops if o.name == "alloc" and o.attrs.get("arena") == number]
            tenants.sort(key=lambda o: -_guess(o.result.type.bytes))
            purposes = [self.purpose(o.result) for o in tenants]
            self.late_arenas[number] = self.late_alloc(self.func.attrs["late"][number], purposes)
        return e.gep(self.late_arenas[number], self.size(op.attrs["offset"]))

    def late_alloc(self, bytes: Size, purposes: Sequence[str]) -> str:
        return self.late_bytes(self.bytes(bytes), purposes)

    def late_bytes(self, bytes: str, purposes: Sequence[str]) -> str:
        e = self.e
        e.declare(DECLARATIONS["tcc_late_alloc"])
        pointer = e.value(
            f"call ptr @tcc_late_alloc(ptr {self.ctx}, i64 {self.claim(purposes)}, i64 {bytes})"
        )
        missing = e.value(f"icmp eq ptr {pointer}, null")
        self.leave_unless_ok(e.value(f"select i1 {missing}, i32 {STATUS_PYTHON}, i32 0"))
        return pointer

    def claim(self, purposes: Sequence[str]) -> int:
        """The number of a new claim for these purposes, the one that takes most first."""
        more = f" and {len(purposes) - 1} more" if len(purposes) > 1 else ""
        self.claims.append(Claim(purposes[0] + more, None))
        return len(self.claims) - 1

    def purpose(self, place: Value) -> str:
        maker = self.makers.get(place, place.op)
        return purpose_of(maker, [place]) if maker is not None else str(place.type.value)

    def known_claims(self) -> list[Claim]:
        """What the memory that a call takes at its beginning is for; of sizes that are numbers, the largest alone."""
        body = self.func.body
        places = [p for p in body.params if space_of(p) == "output"]
        places += [o.result for o in body.walk() if o.name == "alloc" and space_of(o.result) == "arena"]
        claims = [Claim(self.purpose(p), p.type.bytes) for p in places]
        claims += self.entry_claims
        numbers = [c for c in claims if isinstance(c.bytes, int)]
        largest = max(numbers, key=lambda c: dims.evaluate(c.bytes or 0, {}), default=None)
        return [c for c in claims if c is largest or not isinstance(c.bytes, int)]

    def make_output(self, op: Op) -> None:
        """An output whose sizes are known only now."""
        e, t = self.e, op.result.type
        e.declare(DECLARATIONS["tcc_grant"])
        claim = self.claim([self.purpose(op.result)])
        bytes = self.bytes(t.bytes)
        self.leave_unless_ok(e.value(f"call i32 @tcc_grant(ptr {self.ctx}, i64 {claim}, i64 {bytes})"))
        for axis, s in enumerate(t.shape):
            e.line(f"store i64 {self.size(s)}, ptr {e.gep('%args', axis, 'i64')}")
        e.declare(DECLARATIONS["tcc_output"])
        pointer = e.value(
            f"call ptr @tcc_output(ptr {self.ctx}, i64 {op.attrs['offset']}, i64 {TYPENUMS[t.dtype]}, "
            f"i64 {t.rank}, ptr %args)"
        )
        missing = e.value(f"icmp eq ptr {pointer}, null")
        self.leave_unless_ok(e.value(f"select i1 {missing}, i32 {STATUS_PYTHON}, i32 0"))
        self.pointers[op.result] = pointer


def _guess(size: Size) -> int:
    return dims.evaluate(size, dict.fromkeys(dims.names_of(size), LATE_SIZE))


def purpose_of(op: Op, places: Sequence[Value]) -> str:
    """An op as messages about memory for its results name it."""
    types = ", ".join(str(v.type.value) for v in places)
    name = op.name
    if name == "fuse":
        inner = [o.name for o in op.block.ops if o.name != "yield"]
        name = " of ".join([*filter(None, op.attrs.get("reduce", [])), *reversed(inner[-2:])])
    return f"{name} {types}" + (f", written at {op.loc}" if op.loc else "")
