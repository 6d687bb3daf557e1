"""What elements get back from windows that cover each of them once: rows of windows, and all of their elements, as whole vectors.

A vector holds the windows of one short row, or of a few rows.  Their elements follow one another in memory, so each vector of
these is a fixed shuffle of it, and no lanes idle at the ends of rows.
"""

from __future__ import annotations

from math import prod

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.index import times
from tcc.codegen.kernel import Kernel
from tcc.codegen.nest import Position
from tcc.codegen.pooling import Backward
from tcc.codegen.target import Target
from tcc.codegen.vectors import LINE, fetch
from tcc.ir.core import Op
from tcc.ir.dims import floordiv
from tcc.ir.types import dense_strides

MOST_VECTORS = 16  # of elements, for a vector of windows
AHEAD = (
    3 << 10
)  # bytes from what is read to what is fetched: by itself the CPU fetches three streams too late


def unpool_kernel(op: Op, target: Target, single: bool = False) -> Kernel:
    """out[i] = sum of g over the windows that hold i."""
    kind = Backward if single or not _possible(op, target, 0) else Tiled
    return kind(op, target, 0, False, single).write()


def max_pool_grad_kernel(op: Op, target: Target, single: bool = False) -> Kernel:
    """out[i] = sum of g over the windows that hold i where x[i] == y."""
    kind = Backward if single or not _possible(op, target, 2) else Tiled
    return kind(op, target, 2, True, single).write()


def _possible(op: Op, target: Target, g: int) -> bool:
    """Windows of at most two axes, of known sizes, lie side by side, a row fits a vector, and all memory is dense."""
    out, windows = op.operands[-1].type, op.operands[g].type
    rank = len(op.attrs["ws"])
    elements, counts = out.shape[-rank:], windows.shape[-rank:]
    if rank > 2 or list(op.attrs["ws"]) != list(op.attrs["stride"]) or any(op.attrs["pad"]):
        return False
    if any(n != c * s for n, c, s in zip(elements, counts, op.attrs["stride"])):
        return False
    if not all(isinstance(n, int) and n for n in (*elements, *counts)):
        return False
    lanes = target.vector(scalar.elem(out.dtype)).lanes
    dense = all(v.type.strides == dense_strides(v.type.shape) for v in op.operands)
    across = counts[-1]
    return dense and isinstance(across, int) and across <= lanes and prod(op.attrs["stride"]) <= MOST_VECTORS


class Tiled(Backward):
    def write(self) -> Kernel:
        self.lanes = self.target.vector(scalar.elem(self.dtype)).lanes
        across = int(self.inner.windows)  # type: ignore[arg-type]
        down = int(self.outer[0].windows) if self.outer else 1  # type: ignore[arg-type]
        self.at_once = max(r for r in range(1, self.lanes // across + 1) if down % r == 0)  # rows of windows
        rows = [*self.lead, *(floordiv(a.windows, self.at_once) for a in self.outer)]
        lines = self.at_once * (self.outer[0].stride if self.outer else 1)
        return self.kernel(rows, 10 * lines, self.row)

    def row(self, at: list[str], single: str) -> None:
        """Some rows of windows."""
        e, w, lanes = self.e, self.w, self.lanes
        first = [times(e, o, str(self.at_once)) for o in at[len(self.lead) :]]
        across, stride = int(self.inner.windows), self.inner.stride  # type: ignore[arg-type]
        down = self.outer[0].stride if self.outer else 1
        where = [*at[: len(self.lead)], *first, "0"]
        spot = Position("0", lanes, self.within("0", str(self.at_once * across)))
        parts = [self.vectors.load(self.dtype, w.address(i, where), 1, spot) for i in self.read]
        here = [*at[: len(self.lead)], *(times(e, o, str(down)) for o in first), "0"]
        base, count = w.address(self.out, here), self.at_once * down * across * stride
        t = VecType(scalar.elem(self.dtype), lanes)
        streams = [(i, where, lanes) for i in self.read] + [(0, here, count)] * self.selects
        for i, at_first, elements in streams:
            for byte in range(AHEAD, AHEAD + elements * t.bytes, LINE):
                fetch(e, e.gep(w.address(i, at_first), byte), 0)
        for begin in range(0, count, lanes):
            places = [divmod(min(begin + lane, count - 1), across * stride) for lane in range(lanes)]
            order = ", ".join(f"i32 {line // down * across + column // stride}" for line, column in places)
            spread = [e.value(f"shufflevector {t} {p}, {t} poison, <{lanes} x i32> <{order}>") for p in parts]
            spot = Position(str(begin), lanes, self.within(str(begin), str(count)))
            (x,) = self.elements(here[:-1], [spot]) or [""]
            zero = self.fold.identity(lanes)
            total = self.fold.add(e, self.target, zero, self.element(x, spread, lanes), lanes)
            value = self.fold.narrow(e, self.target, total, lanes)
            self.vectors.store(self.dtype, value, base, 1, spot)
