"""Matrix times vector: sums along k in vector lanes, and sums of rows; both run at the speed of memory."""

from __future__ import annotations

from tcc.codegen.emit import Emit, LoopBody, VecType
from tcc.codegen.index import Index
from tcc.codegen.microkernel import each_vector, load, splat, store
from tcc.codegen.target import Target

ROWS = 8  # chains that run side by side, enough to hide the latency of one


def dot_name(t: VecType) -> str:
    return f"tcc_dot_{t.suffix}"


def dot_rows(t: VecType) -> int:
    """Rows of one call, a power of two and at most the lanes, so that their sums fit one vector."""
    return min(ROWS, t.lanes)


def dot_kernel(t: VecType, target: Target) -> Emit:
    """`void @tcc_dot_T(x, x stride, y, z, z stride, k, rows, add)`: z[i] = sum over k of x[i, k] y[k], strides in bytes.

    For up to `dot_rows` rows, at least one; z[i] is added to where `add` != 0.  Lane l sums k = l, l + lanes, ... in order,
    then the lanes are added in a fixed tree: the result depends on the values and k alone.
    """
    e, rows = Emit(), dot_rows(t)
    e.function(
        f"internal void @{dot_name(t)}(ptr noalias readonly %x, i64 %xs, ptr noalias readonly %y, ptr noalias %z, "
        "i64 %zs, i64 %k, i64 %rows, i64 %add)"
    )
    sums = e.value(f"alloca {VecType(t.elem, rows)}, align 64")
    index = Index(e)
    last = index.sub("%rows", 1)
    starts = ["%x"] + [e.gep("%x", str(index.mul(index.min(i, last), "%xs"))) for i in range(1, rows)]

    def step(at: str, mask: str | None, acc: list[str]) -> list[str]:
        y = load(e, t, e.gep("%y", at, t.elem), mask)
        xs = [load(e, t, e.gep(p, at, t.elem), mask) for p in starts]
        return [
            e.call(t, f"llvm.fma.{t.suffix}", (t, x), (t, y), (t, s)) for x, s in zip(xs, acc, strict=True)
        ]

    acc = each_vector(e, t, target, "%k", step, [(t, "zeroinitializer")] * rows)
    total, width = _sum_lanes(e, t, acc)
    store(e, width, total, sums)

    def add() -> None:
        def one(i: str, v: list[str]) -> list[str]:
            at = e.gep(sums, i, t.elem)
            old = e.value(f"load {t.elem}, ptr {v[0]}, align {t.bytes}")
            value = e.value(f"load {t.elem}, ptr {at}, align {t.bytes}")
            e.line(f"store {t.elem} {e.value(f'fadd {t.elem} {old}, {value}')}, ptr {at}, align {t.bytes}")
            return [e.gep(v[0], "%zs")]

        e.loop(0, "%rows", 1, one, [("ptr", "%z")])

    def put(i: str, v: list[str]) -> list[str]:
        value = e.value(f"load {t.elem}, ptr {e.gep(sums, i, t.elem)}, align {t.bytes}")

        e.line(f"store {t.elem} {value}, ptr {v[0]}, align {t.bytes}")
        return [e.gep(v[0], "%zs")]

    e.when(e.value("icmp ne i64 %add, 0"), add)
    e.loop(0, "%rows", 1, put, [("ptr", "%z")])
    e.end()
    return e


def _sum_lanes(e: Emit, t: VecType, vectors: list[str]) -> tuple[str, VecType]:
    """The sums of the vectors, in order in one vector: pairs share a vector from the first round on."""

    def halves(a: str, b: str, groups: int) -> tuple[str, str]:
        """The first and the second half of each of the `groups` runs of lanes in a, then of those in b."""
        size = t.lanes // groups // 2
        runs = [start * 2 * size for start in range(2 * groups)]
        out = []
        for offset in (0, size):
            order = ", ".join(f"i32 {run + offset + i}" for run in runs for i in range(size))
            out.append(e.value(f"shufflevector {t} {a}, {t} {b}, <{t.lanes} x i32> <{order}>"))
        return out[0], out[1]

    groups = 1
    while len(vectors) > 1:
        pairs = [halves(a, b, groups) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        vectors = [e.value(f"fadd {t} {a}, {b}") for a, b in pairs]
        groups *= 2
    total, width = vectors[0], t
    while width.lanes > groups:
        size = width.lanes // groups // 2
        parts = []
        for offset in (0, size):
            order = ", ".join(
                f"i32 {run * 2 * size + offset + i}" for run in range(groups) for i in range(size)
            )
            parts.append(
                e.value(f"shufflevector {width} {total}, {width} poison, <{groups * size} x i32> <{order}>")
            )
        width = VecType(t.elem, groups * size)
        total = e.value(f"fadd {width} {parts[0]}, {parts[1]}")
    return total, width


def row_name(t: VecType) -> str:
    return f"tcc_row_{t.suffix}"


def row_kernel(t: VecType, target: Target) -> Emit:
    """`void @tcc_row_T(a, a stride, b, b stride, c, k, n)`: c[j] += sum over p of a[p] b[p, j], strides in bytes.

    Each c[j] is one chain over p in order.  A few rows of B at a time are read along their whole length.
    """
    e = Emit()
    e.function(
        f"internal void @{row_name(t)}(ptr noalias readonly %a, i64 %as, ptr noalias readonly %b, i64 %bs, "
        "ptr noalias %c, i64 %k, i64 %n)"
    )
    x = Index(e)

    def rows(count: int) -> LoopBody:
        def body(p: str, _: list[str]) -> None:
            first_a, first_b = e.gep("%a", x.mul(p, "%as")), e.gep("%b", x.mul(p, "%bs"))
            scale, starts = [], []
            for i in range(count):
                value = e.value(f"load {t.elem}, ptr {e.gep(first_a, x.mul(i, '%as'))}, align {t.bytes}")
                scale.append(splat(e, t, value))
                starts.append(e.gep(first_b, x.mul(i, "%bs")))

            def vector(j: str, mask: str | None, _: list[str]) -> list[str]:
                c = e.gep("%c", j, t.elem)
                total = load(e, t, c, mask)
                for s, start in zip(scale, starts, strict=True):
                    b = load(e, t, e.gep(start, j, t.elem), mask)
                    total = e.call(t, f"llvm.fma.{t.suffix}", (t, s), (t, b), (t, total))
                store(e, t, total, c, mask)
                return []

            each_vector(e, t, target, "%n", vector)

        return body

    most = e.value(f"and i64 %k, {-ROWS}")
    e.loop(0, most, ROWS, rows(ROWS))
    e.loop(most, "%k", 1, rows(1))
    e.end()
    return e
