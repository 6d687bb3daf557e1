"""Matrix times vector: sums along k in vector lanes, and sums of rows; both run at the speed of memory."""

from __future__ import annotations

from collections.abc import Callable

from tcc.codegen.emit import Emit, LoopBody, VecType
from tcc.codegen.index import Index, Size
from tcc.codegen.products.microkernel import VECTORS
from tcc.codegen.products.record import (
    BODY,
    ROW_UNIT,
    UNPACKED,
    Reach,
    Record,
    begin_part,
    call_part,
    end_part,
)
from tcc.codegen.target import Target
from tcc.codegen.vectors import each_vector, load, splat, store

DOT_ROWS = 8  # chains that run side by side, enough to hide the latency of one
_ROW_RUN = 4096  # columns that stay in the first-level cache while rows are added to them
_ROWS = 8  # rows of B that are read side by side
_ABREAST = 4  # panels of B whose columns are added up side by side


def dot_name(t: VecType) -> str:
    return f"tcc_dot_{t.suffix}"


def dot_kernel(t: VecType, target: Target) -> Emit:
    """`void @tcc_dot_T(x, x stride, y, z, z stride, k, rows, add)`: z[i] = sum over k of x[i, k] y[k], strides in bytes.

    For up to DOT_ROWS rows, at least one; z[i] is added to where `add` != 0.  Lane l sums k = l, l + lanes, ... in order,
    then the lanes are added in a fixed tree: the result depends on the values and k alone.
    """
    e = Emit()
    e.function(
        f"internal void @{dot_name(t)}(ptr noalias readonly %x, i64 %xs, ptr noalias readonly %y, ptr noalias %z, "
        "i64 %zs, i64 %k, i64 %rows, i64 %add)"
    )
    sums = e.value(f"alloca [{DOT_ROWS} x {t}], align 64")
    index = Index(e)
    last = index.sub("%rows", 1)
    starts = ["%x"] + [e.gep("%x", str(index.mul(index.min(i, last), "%xs"))) for i in range(1, DOT_ROWS)]

    def step(at: str, mask: str | None, acc: list[str]) -> list[str]:
        y = load(e, t, e.gep("%y", at, t.elem), mask)
        xs = [load(e, t, e.gep(p, at, t.elem), mask) for p in starts]
        return [
            e.call(t, f"llvm.fma.{t.suffix}", (t, x), (t, y), (t, s)) for x, s in zip(xs, acc, strict=True)
        ]

    acc = each_vector(e, t, target, "%k", step, [(t, "zeroinitializer")] * DOT_ROWS)
    for i, vector in enumerate(acc):
        store(e, t, vector, e.gep(sums, i, str(t)))
    adds = e.value("icmp ne i64 %add, 0")

    def put(i: str, v: list[str]) -> list[str]:
        total = sum_lanes(e, t, load(e, t, e.gep(sums, i, str(t))))
        old = e.value(f"load {t.elem}, ptr {v[0]}, align {t.bytes}")
        start = e.value(
            f"select i1 {adds}, {t.elem} {old}, {t.elem} -0.0"
        )  # which adds nothing, not even a sign
        e.line(f"store {t.elem} {e.value(f'fadd {t.elem} {start}, {total}')}, ptr {v[0]}, align {t.bytes}")
        return [e.gep(v[0], "%zs")]

    e.loop(0, "%rows", 1, put, [("ptr", "%z")])
    e.end()
    return e


def sum_lanes(e: Emit, t: VecType, vector: str) -> str:
    """The sum of the lanes: the upper half is added to the lower one until one is left."""
    while t.lanes > 1:
        half = VecType(t.elem, t.lanes // 2)
        parts = []
        for start in (0, half.lanes):
            order = ", ".join(f"i32 {start + i}" for i in range(half.lanes))
            parts.append(
                e.value(f"shufflevector {t} {vector}, {t} poison, <{half.lanes} x i32> <{order}>")
                if half.lanes > 1
                else e.value(f"extractelement {t} {vector}, i64 {start}")
            )
        vector, t = e.value(f"fadd {half} {parts[0]}, {parts[1]}"), half
    return vector


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

    most = e.value(f"and i64 %k, {-_ROWS}")
    e.loop(0, most, _ROWS, rows(_ROWS))
    e.loop(most, "%k", 1, rows(1))
    e.end()
    return e


def dot_body(t: VecType) -> Emit:
    """Body over groups of rows: sums along k, for each of few columns while the rows are in the first-level cache."""
    e = Emit()
    begin_part(e, t, "_dot", BODY)
    x, r = Index(e), Record(e, "%r")
    m, n, k, ars, crs, ccs = r["m"], r["n"], r["k"], r["ars"], r["crs"], r["ccs"]
    a, c, add, finish, args, index = r["a"], r["c"], r["accumulate"], r["epilogue"], r["args"], r["index"]
    packed = e.value(f"icmp ne i64 {r['pack_b']}, {UNPACKED}")
    b = e.value(f"select i1 {packed}, ptr {r['panels']}, ptr {r['b']}")
    b_step = e.value(f"select i1 {packed}, i64 {x.mul(k, t.bytes)}, i64 {r['bcs']}")
    turned, place_of = r["turned"], _either_way(e, r, "%begin", "%end", 1)

    def group(unit: str, _: list[str]) -> None:
        i = x.mul(place_of(unit), DOT_ROWS)
        rows = x.min(x.sub(m, i), DOT_ROWS)
        row, place = e.gep(a, x.mul(i, ars)), e.gep(c, x.mul(i, crs))

        def column(j: str, _: list[str]) -> None:
            y, z = e.gep(b, x.mul(j, b_step)), e.gep(place, x.mul(j, ccs))
            operands = (("ptr", row), ("i64", ars), ("ptr", y), ("ptr", z), ("i64", crs))
            call_part(e, dot_name(t), *operands, ("i64", k), ("i64", rows), ("i64", add))

        e.loop(0, n, 1, column)

        def fuse() -> None:
            step, lines, width = x.pick(turned, ccs, crs), x.pick(turned, n, rows), x.pick(turned, rows, n)
            first, column = x.pick(turned, 0, i), x.pick(turned, i, 0)
            e.line(
                f"call void {finish}(ptr {args}, ptr {place}, i64 {step}, i64 {lines}, i64 {width}, i64 {first}, "
                f"i64 {column}, i64 {index})"
            )

        e.when(e.value(f"icmp ne ptr {finish}, null"), fuse)

    e.loop("%begin", "%end", 1, group)
    return end_part(e)


def _either_way(e: Emit, r: Record, begin: str, end: str, step: int) -> Callable[[str], Size]:
    """What the round `i` of a loop from `begin` to `end` works on: `i`, or if the record says `backwards`, what is as far from
    the last round."""
    x, backwards = Index(e), r["backwards"]
    rounds = x.ceil_div(x.sub(end, begin), step)
    both = x.add(x.add(begin, begin), x.mul(x.sub(rounds, 1), step))
    return lambda i: x.pick(backwards, x.sub(both, i), i)


def row_body(t: VecType) -> Emit:
    """Body over units of ROW_UNIT columns of a product of one row, as long a run of them at a time as fits the cache."""
    e = Emit()
    begin_part(e, t, "_row", BODY)
    x, r = Index(e), Record(e, "%r")
    n, k, acs, brs, add = r["n"], r["k"], r["acs"], r["brs"], r["accumulate"]
    a, b, c, finish, args, index = r["a"], r["b"], r["c"], r["epilogue"], r["args"], r["index"]
    fresh = e.value(f"icmp eq i64 {add}, 0")
    last = x.min(n, x.mul("%end", ROW_UNIT))

    def run(j: str, _: list[str]) -> None:
        cols = x.min(x.sub(last, j), _ROW_RUN)
        place = e.gep(c, j, t.elem)

        def clear(i: str, _: list[str]) -> None:
            e.line(f"store {t.elem} 0.0, ptr {e.gep(place, i, t.elem)}")

        def zeros() -> None:
            e.loop(0, cols, 1, clear)

        e.when(fresh, zeros)
        operands = (("ptr", a), ("i64", acs), ("ptr", e.gep(b, j, t.elem)), ("i64", brs), ("ptr", place))
        call_part(e, row_name(t), *operands, ("i64", k), ("i64", cols))
        e.when(
            e.value(f"icmp ne ptr {finish}, null"),
            lambda: e.line(
                f"call void {finish}(ptr {args}, ptr {place}, i64 0, i64 1, i64 {cols}, i64 0, i64 {j}, i64 {index})"
            ),
        )

    e.loop(str(x.mul("%begin", ROW_UNIT)), str(last), _ROW_RUN, run)
    return end_part(e)


def row_panels_body(t: VecType, target: Target, reach: Reach) -> Emit:
    """Body over units of ROW_UNIT columns of a product of one row by panels: some panels' columns side by side.

    Each c[j] is one chain over k in order.  At the end panels are read again whose sums nobody wants.
    """
    e, width, step_bytes = Emit(), VECTORS * t.lanes, t.lanes * t.bytes
    begin_part(e, t, "_row_panels", BODY)
    x, r = Index(e), Record(e, "%r")
    n, k, acs, column, add = r["n"], r["k"], r["acs"], x.mul(r["bcs"], width), r["accumulate"]
    a, b, c, finish, args, index = r["a"], r["b"], r["c"], r["epilogue"], r["args"], r["index"]
    count = _ABREAST * VECTORS
    sums = e.value(f"alloca [{count} x {t}], align 64")
    final = x.div(x.sub(n, 1), width)
    adds = e.value(f"icmp ne i64 {add}, 0") if reach.resume else "false"

    end = str(x.min(n, x.mul("%end", ROW_UNIT)))
    begin = str(x.mul("%begin", ROW_UNIT))
    place_of = _either_way(e, r, begin, end, _ABREAST * width)

    def group(at: str, _: list[str]) -> None:
        j = place_of(at)
        place, cols = e.gep(c, j, t.elem), str(x.min(x.sub(n, j), _ABREAST * width))
        starts = [e.gep(b, x.mul(x.min(x.add(x.div(j, width), i), final), column)) for i in range(_ABREAST)]

        def copied(source: str, to: str) -> None:
            def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
                store(e, t, load(e, t, e.gep(source, i, t.elem), mask), e.gep(to, i, t.elem), mask)
                return []

            each_vector(e, t, target, cols, vector)

        first = ["zeroinitializer"] * count
        if adds != "false":
            e.when(adds, lambda: copied(place, sums))
            old = [load(e, t, e.gep(sums, i, str(t))) for i in range(count)]
            first = [e.value(f"select i1 {adds}, {t} {v}, {t} zeroinitializer") for v in old]

        def step(_: str, v: list[str]) -> list[str]:
            number = splat(e, t, e.value(f"load {t.elem}, ptr {v[0]}, align {t.bytes}"))
            acc = list(v[1 + _ABREAST :])
            for i, total in enumerate(acc):
                there = load(e, t, e.gep(v[1 + i // VECTORS], i % VECTORS * step_bytes))
                acc[i] = e.call(t, f"llvm.fma.{t.suffix}", (t, number), (t, there), (t, total))
            return [e.gep(v[0], acs), *(e.gep(p, VECTORS * step_bytes) for p in v[1 : 1 + _ABREAST]), *acc]

        carried = [("ptr", p) for p in (a, *starts)] + [(t, z) for z in first]
        for i, total in enumerate(e.loop(0, k, 1, step, carried)[1 + _ABREAST :]):
            store(e, t, total, e.gep(sums, i, str(t)))
        copied(sums, place)
        e.when(
            e.value(f"icmp ne ptr {finish}, null"),
            lambda: e.line(
                f"call void {finish}(ptr {args}, ptr {place}, i64 0, i64 1, i64 {cols}, i64 0, i64 {j}, i64 {index})"
            ),
        )

    e.loop(begin, end, _ABREAST * width, group)
    return end_part(e)
