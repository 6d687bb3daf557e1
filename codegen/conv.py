"""Convolution and its gradients."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.kernel import Kernel, plus, times
from tcc.codegen.target import Target
from tcc.ir.core import Op


def conv_kernel(op: Op, target: Target) -> Kernel:
    """A placed `conv`, `conv_input` or `conv_filter`: one element of the result a unit of work, a sum in float64."""
    w = Places(op, target)
    e = w.e
    # where image, filters and the convolution's result stand among the operands
    xi, wi, yi = {"conv": (0, 1, 2), "conv_input": (2, 0, 1), "conv_filter": (0, 2, 1)}[op.name]
    x, f, y = (w.types[i] for i in (xi, wi, yi))
    out = w.types[2]
    attrs, rank = op.attrs, x.rank - 2
    groups = int(attrs["groups"])
    wide = VecType("double")
    w.begin_body(attrs["pads"])
    total = e.value("alloca double")

    def unit(u: str, _: list[str]) -> None:
        at = w.unravel(u, out.shape)
        filters = e.value(f"udiv i64 {w.size(y.shape[1])}, {groups}")  # of a group
        channels = w.size(f.shape[1])

        def inside(value: str, size: str, then: object) -> None:
            e.when(e.value(f"icmp ult i64 {value}, {size}"), then)  # type: ignore[arg-type]

        e.line(f"store double 0.0, ptr {total}")

        def add(xs: list[str], fs: list[str], ys: list[str]) -> None:
            operands = {xi: xs, wi: fs, yi: ys}
            values = []
            for i in (0, 1):
                v = w.load(i, operands[i])
                dtype = w.types[i].dtype
                values.append(
                    scalar.emit_scalar(e, target, "cast(a)", {"a": (dtype, v)}, lanes=1, result="f64")
                )
            old = e.value(f"load double, ptr {total}")
            e.line(
                f"store double {e.call(wide, 'llvm.fma.f64', *((wide, v) for v in (*values, old)))}, ptr {total}"
            )

        def space(axis: int, xs: list[str], fs: list[str], ys: list[str]) -> None:
            """The spatial axes from `axis` on: of the three positions one follows from the other two."""
            if axis == rank:
                add(xs, fs, ys)
                return
            a = axis + 2
            lo, s, d = w.size(attrs["pads"][2 * axis]), attrs["strides"][axis], attrs["dilation"][axis]

            def go(p: str, t: str, q: str) -> None:
                space(axis + 1, [*xs, p], [*fs, t], [*ys, q])

            def image(t: str, q: str) -> str:
                return e.value(f"sub i64 {plus(e, times(e, q, str(s)), times(e, t, str(d)))}, {lo}")

            def tap(t: str, _: list[str]) -> None:
                if op.name == "conv":
                    p = image(t, at[a])
                    inside(p, w.size(x.shape[a]), lambda: go(p, t, at[a]))
                    return
                padded = e.value(f"sub i64 {plus(e, at[a], lo)}, {times(e, t, str(d))}")

                def divide() -> None:
                    q, r = (e.value(f"u{how} i64 {padded}, {s}") for how in ("div", "rem"))
                    whole = e.value(f"icmp eq i64 {r}, 0")
                    e.when(whole, lambda: inside(q, w.size(y.shape[a]), lambda: go(at[a], t, q)))

                e.when(e.value(f"icmp sge i64 {padded}, 0"), divide)

            def place(q: str, _: list[str]) -> None:
                p = image(at[a], q)
                inside(p, w.size(x.shape[a]), lambda: go(p, at[a], q))

            if op.name == "conv_filter":
                e.loop(0, w.size(y.shape[a]), 1, place)
            else:
                e.loop(0, w.size(f.shape[a]), 1, tap)

        if op.name == "conv":
            base = times(e, e.value(f"udiv i64 {at[1]}, {filters}"), channels)
            e.loop(0, channels, 1, lambda c, _: space(0, [at[0], plus(e, base, c)], [at[1], c], at[:2]))
        elif op.name == "conv_input":
            base, c = (e.value(f"u{how} i64 {at[1]}, {channels}") for how in ("div", "rem"))
            base = times(e, base, filters)

            def each_filter(k: str, _: list[str]) -> None:
                o = plus(e, base, k)
                space(0, at[:2], [o, c], [at[0], o])

            e.loop(0, filters, 1, each_filter)
        else:
            base = times(e, e.value(f"udiv i64 {at[0]}, {filters}"), channels)
            c = plus(e, base, at[1])
            e.loop(0, w.size(x.shape[0]), 1, lambda n, _: space(0, [n, c], at[:2], [n, at[0]]))
        value = e.value(f"load double, ptr {total}")
        narrow = scalar.emit_scalar(e, target, "cast(a)", {"a": ("f64", value)}, lanes=1, result=out.dtype)
        w.store(2, at, narrow)

    e.loop("%begin", "%end", 1, unit)
    e.end()
    w.begin_kernel()
    w.parallel(w.count(out.shape), "100000")
    e.end("i32 0")
    return w.finish(op.name)
