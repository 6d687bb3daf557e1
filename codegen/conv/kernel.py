"""Convolution and its gradient by the image, by register tiles that read the padded image in place.

A copy of the image in scratch has zeros around it, rows of a constant pitch, and a plane for each phase of the strides or
for each tap along a row (`conv/axes.py`).  So the elements that a tap meets for a run of neighbouring results are a run
too, at a distance that is the tap's alone: a register tile of `rows` channels by some vectors of pixels takes its vectors
at the offsets of a table.  Each element is one chain of fused multiply-adds over channels, then taps, whatever the tile.
A filter of one tap meets runs of the image itself, and needs no copy.

Where results follow one another in memory as in the copy, a tile goes from registers to its place, through the op's block;
what is at an edge, or has an expensive block, goes through a copy of the tile in the first-level cache.

The gradient by the image is such a convolution of g for each phase of the strides, with the taps that meet the phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.conv.axes import (
    Axis,
    Run,
    backward_axis,
    best_axes,
    ceil_div,
    forward_axis,
    known,
    spread_axis,
    whole_rows,
)
from tcc.codegen.conv.pad import write_spread_pad
from tcc.codegen.conv.text import ConvText, Number, best_tile, needed_mask
from tcc.codegen.emit import VecType
from tcc.codegen.epilogue import emit_block
from tcc.codegen.index import Index
from tcc.codegen.kernel import Kernel
from tcc.codegen.products.microkernel import each_vector, load, splat, store
from tcc.codegen.target import Target
from tcc.ir.core import Op, Value
from tcc.ir.dims import Size, add, floordiv, maximum, minimum, mul, sub
from tcc.passes.epilogue import cheap
from tcc.runtime import layout as at

ROUND_THREADS = 4  # that have images of their own in a round
LONG_BLOCK = 64  # ops of a tile's block for all of its vectors, past which they are written once, in a loop over the rows
TOGETHER = (3, 5, 2)  # steps of a tile in a round, the first that divides their number
AHEAD = 6  # steps of a tile by which vectors that lie beyond the first-level cache are fetched before they are read


class Conv(ConvText):
    """A placed `conv` or `conv_input`.  Threads share the images, and the runs of pixels of each."""

    def __init__(self, op: Op, target: Target) -> None:
        super().__init__(op, target)
        self.forward = op.name == "conv"
        self.si, self.fi = (0, 1) if self.forward else (1, 0)
        self.source, self.filters, self.result = self.types[self.si], self.types[self.fi], self.types[2]
        self.groups = int(op.attrs["groups"])
        f_out, f_in = floordiv(self.filters.shape[0], self.groups), self.filters.shape[1]
        self.depth_channels, self.m = (f_in, f_out) if self.forward else (f_out, f_in)
        self.axes = self._axes()
        self.phases = [
            (a, b, c) for a in self.axes[0].runs for b in self.axes[1].runs for c in self.axes[2].runs
        ]
        self.merged = all(a.spread for a in self.axes)
        pitch, cols = self.axes[2].pitch, self.phases[0][2].count
        steps = self.three(self.result.strides[2:], 0)
        self.whole_rows = self._dense_rows() and whole_rows(self.axes, self.t)
        self.runs = [
            maximum(add(mul(sub(rows.count, 1), pitch), cols.count), 0) for _, rows, cols in self.phases
        ]  # pixels of each phase that follow one another
        if self.merged or self.whole_rows:
            self.runs = [mul(*(r.count for r in self.phases[0][0 if self.merged else 1 :]))]
        most: Size = 0
        for run in self.runs:
            most = maximum(most, run)
        if self.merged:
            most = mul(most, self.source.shape[0])
        self.depths = [mul(self.depth_channels, *(r.taps for r in phase)) for phase in self.phases]
        deepest = max((k for k in self.depths if isinstance(k, int)), default=self.depths[0])
        aligned = isinstance(pitch, int) and pitch % self.t.lanes == 0 and self.axes[2].spread is not None
        cycles, self.h, self.v = best_tile(
            self.t, target, self.m, most, deepest, aligned, ends=not self.merged, lines=self._lines()
        )
        self.cycles = cycles * len(self.phases)  # of an image, or of all where they are merged
        self.width = self.v * self.t.lanes
        self.heads = self.v if self.whole_rows else 1  # addresses of a tile's vectors
        lines, longer = self._lines()
        read = mul(lines, add(self.width, longer), self.t.bytes)
        self.far = isinstance(read, int) and read > target.l1_bytes
        self.tiles = ceil_div(self.m, self.h)
        # rows of results follow one another in memory, and tiles go on from row to row
        step = len(self.phases) == 1 and self.phases[0][1].step == self.phases[0][2].step == 1
        self.gapless = step and (self.whole_rows or pitch == cols) and self._dense_rows()
        if self.merged and self.phases[0][0].count != 1:
            self.gapless = self.gapless and steps[0] == mul(self.phases[0][1].count, steps[1])
        self.direct = self.gapless and steps[2] == 1 and (not op.blocks or cheap(op.block.ops))
        # tiles may read the source itself
        self.in_place = self.one_tap(self.filters, self.source) and not any(a.spread for a in self.axes)

    def _dense_rows(self) -> bool:
        """Whether rows of results follow one another in memory."""
        steps = self.three(self.result.strides[2:], 0)
        return bool(steps[1] == mul(self.three(self.result.shape[2:], 1)[2], steps[2]))

    def _end(self, run: Size) -> tuple[int, int] | None:
        """(vectors, lanes of the last one or 0 for all) of a run's last tile, if that is not like the others."""
        rest = run % self.width if isinstance(run, int) and not self.merged else 0
        v, last = -(-rest // self.t.lanes), 0
        if self.direct or self.in_place:
            last = rest % self.t.lanes
        return (v, last) if rest and (v < self.v or last) else None

    def _axes(self) -> list[Axis]:
        make = forward_axis if self.forward else backward_axis
        space, kernel, other = (self.three(t.shape[2:], 1) for t in (self.source, self.filters, self.result))
        pads = self.pads()
        shared: list[Axis] = []
        spread: list[Axis | None] = []
        for i in range(3):
            how = pads[i], self.strides[i], self.dilation[i]
            sizes = (space[i], kernel[i], other[i]) if self.forward else (other[i], kernel[i], space[i])
            shared.append(make(*sizes, *how, i == 2))
            known = isinstance(kernel[i], int) and (self.forward or self.strides[i] == 1)
            spread.append(spread_axis(kernel[i], other[i], *how, self.forward) if known else None)
        layout = self.t, self.target, self._dense_rows()
        return best_axes(shared, spread, space, self.depth_channels, self.m, *layout)

    def _lines(self) -> tuple[Size, Size]:
        """What taps of the first phase read for a run of results: (lines, elements by which each is longer than the run)."""
        lines, longer = self.depth_channels, 0
        for axis, run in zip(self.axes, self.phases[0]):
            if not isinstance(run.taps, int) or not isinstance(axis.pitch, int):
                return -1, 0
            lines = mul(lines, min(axis.phases, run.taps))
            longer = longer * axis.pitch + max(run.taps - 1, 0) * abs(run.apart) // axis.phases
        return lines, longer

    def kernel(self) -> Kernel:
        h, width, images = self.h, self.width, self.source.shape[0]
        slack = add(width, self.axes[2].share, self.t.lanes)
        self.lay_out(self.axes, channels=mul(self.groups, self.depth_channels), slack=slack)
        tables, packs = [], []
        for k in self.depths:
            tables.append(self.reserve(mul(add(k, AHEAD), 8)))
            packs.append(self.reserve(mul(self.groups, self.tiles, k, h * self.t.bytes)))
        if self.in_place:
            most_images, (self.image, self.plane) = images, self.source.strides[:2]
        elif self.merged:
            most_images = self.merge_images(images)
        else:
            most_images = self.images_at_once(images, threads=ROUND_THREADS)
        if self.axes[2].spread:
            write_spread_pad(self, self.si, self.axes)
        elif not self.in_place:
            self.write_pad(self.si, self.axes)
        self._write_tile("tile", self.v)
        for v, last in sorted({end for run in self.runs if (end := self._end(run))}):
            self._write_tile(f"end{v}", v, last)
        self._write_edge()
        # the table and the packed filters of each phase
        for number, phase in enumerate(self.phases):
            self._write_pack(number, phase)
            self._write_tiles(number, phase)

        e = self.begin_kernel()
        x = Index(e)
        most = self.size(most_images)
        if not self.merged and not self.in_place:
            # threads share the images, so that each finds its own in its caches
            threads = e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")
            most = x.mul(x.max(x.min(threads, ROUND_THREADS), 1), most)
        for number in range(len(self.phases)):
            self.put("table", self.scratch(tables[number]))
            self.put("pack", self.scratch(packs[number]))
            units = x.mul(self.size(self.tiles), self.groups)
            self.parallel(f"pack{number}", units, x.mul(self.size(self.depths[number]), h * 32))

        def round(first: str, _: list[str]) -> None:
            count = x.min(x.sub(self.size(images), first), most)
            self.put("first", first)
            self.put("count", count)
            if not self.in_place:
                self.parallel("pad", x.mul(count, self.size(self.channels)), x.mul(self.size(self.copied), 8))
            for number, (d, _rows, cols) in enumerate(self.phases):
                self.put("table", self.scratch(tables[number]))
                self.put("pack", self.scratch(packs[number]))
                run = self.runs[number]
                if self.merged:
                    pixels = x.mul(count, self.size(run))
                    units = x.mul(x.div(x.add(pixels, width - 1), width), self.groups)
                else:
                    blocks = mul(
                        floordiv(add(run, width - 1), width), minimum(cols.count, 1), d.count, self.groups
                    )
                    units = x.mul(count, self.size(blocks))
                cost = x.mul(self.size(mul(self.tiles, self.depths[number])), h * self.v * 8)
                self.parallel(
                    f"tiles{number}", units, x.add(cost, x.mul(self.size(self.tiles), h * self.v * 64))
                )

        e.loop(0, self.size(images), most, round)
        return self.finish(self.op.name, thread_scratch=h * width * self.t.bytes)

    # -- the tile ------------------------------------------------------------------------------------------------

    def _finished(
        self,
        rows: Sequence[str],
        masks: Sequence[str | None],
        image: Number,
        channel: Number,
        pixels: Sequence[Number],
    ) -> list[str]:
        """The op's block for vectors of one channel."""
        if not self.op.blocks:
            return list(rows)
        e, block, lanes = self.e, self.op.block, self.t.lanes
        x = Index(e)
        params: list[dict[Value, str]] = [{block.params[0]: value} for value in rows]
        for k, (p, letters) in enumerate(zip(block.params[1:], self.op.attrs["maps"], strict=True)):
            t, dtype = self.op.operands[2 + k].type, p.type.dtype
            at: Number = 0
            for letter, where in (("a", image), ("b", channel)):
                if letter in letters:
                    at = x.add(at, x.mul(where, self.size(t.strides[letters.index(letter)])))
            base, elem = self.extra(k), scalar.memory_elem(dtype)
            if letters.strip("ab"):
                for known, mask, pixel in zip(params, masks, pixels, strict=True):
                    known[p] = scalar.load(
                        e, self.target, dtype, lanes, e.gep(base, x.add(at, pixel), elem), mask
                    )
                continue
            one = scalar.load(e, self.target, dtype, 1, e.gep(base, at, elem), None)
            for known in params:
                known[p] = splat(e, VecType(scalar.elem(dtype), lanes), one)
        return [emit_block(e, self.target, block, known, lanes) for known in params]

    def _write_tile(self, name: str, v: int, last: int = 0) -> None:
        """`name(args, a, table, b.., c, k, out, rows, image, channel, pixel)`: [h, v vectors] are the sums over k of a[k, h]
        times the vectors at b + table[k], of which each has its own b where rows are whole vectors.  They go through the
        block to `rows` channels at `out`, or as they are to c where that is null.  Of the last vector only `last` lanes are
        results."""
        e, t, h = self.e, self.t, self.h
        params = [
            "ptr noalias readonly %a",
            "ptr noalias readonly %table",
            *(f"ptr noalias readonly %b{j}" for j in range(self.heads)),
            "ptr %c",
            "i64 %k",
        ]
        if self.direct:
            params += ["ptr %out", "i64 %rows", "i64 %image", "i64 %channel", "i64 %pixel"]
        self.begin_function(name, *params)

        x = Index(e)
        counts = [*[t.lanes] * (v - 1), last or t.lanes]
        ends = [needed_mask([j < count for j in range(t.lanes)]) for count in counts]

        def step(k: str, s: list[str]) -> list[str]:
            a, acc = s[0], s[1:]
            where = e.value(f"load i64, ptr {e.gep('%table', k, 'i64')}")
            if self.far:
                soon = e.value(f"load i64, ptr {e.gep('%table', x.add(k, AHEAD), 'i64')}")
                for j in range(min(v, self.heads)):
                    self.fetch(e.gep(f"%b{j}", soon), v // self.heads * t.lanes * t.bytes)
            reads = ends if self.in_place else [None] * v
            vectors = []
            for j, mask in enumerate(reads):
                head, vector = (j, 0) if self.whole_rows else (0, j)
                b = e.gep(e.gep(f"%b{head}", where), vector * t.lanes, t.elem)
                vectors.append(load(e, t, b, mask))
            rows = [e.gep(a, i, t.elem) for i in range(h)]
            return [e.gep(a, h, t.elem), *self.multiply(rows, vectors, acc)]

        together = self._steps_together()

        def steps(k: str, s: list[str]) -> list[str]:
            for i in range(together):
                s = step(str(x.add(k, i)), s)
            return s

        if self.direct:
            # the result's lines, and those that the block reads, arrive while the sums are made
            e.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
            sc = self.size(self.result.strides[1])
            for place, apart, write in [("%out", sc, 1), *((p, s, 0) for p, s in self._read_by_block(x))]:
                for i in range(h):
                    for j in range(v):
                        line = e.gep(e.gep(place, x.mul(apart, i), t.elem), j * t.lanes, t.elem)
                        e.line(f"call void @llvm.prefetch.p0(ptr {line}, i32 {write}, i32 3, i32 1)")
        start = [(t, "zeroinitializer")] * (h * v)
        done = e.loop(0, "%k", together, steps, [("ptr", "%a"), *start])[1:]

        def aside() -> None:
            for i, value in enumerate(done):
                store(e, t, value, e.gep("%c", i // v * self.width + i % v * t.lanes, t.elem))

        if not self.direct:
            aside()
            e.end()
            return
        straight, other = e.label(), e.label()
        e.branch_if(e.value("icmp eq ptr %out, null"), other, straight)
        e.at(straight)
        pixels = [x.add("%pixel", j * t.lanes) for j in range(v)]
        if self.op.blocks and len(list(self.op.block.ops)) * h * v > LONG_BLOCK:
            aside()

            def row(r: str, p: list[str]) -> list[str]:
                place, tile = p
                values = [load(e, t, e.gep(tile, j * t.lanes, t.elem)) for j in range(v)]
                values = self._finished(values, ends, "%image", x.add("%channel", r), pixels)
                for j, value in enumerate(values):
                    self.store_first(value, e.gep(place, j * t.lanes, t.elem), counts[j])
                return [e.gep(place, sc, t.elem), e.gep(tile, self.width, t.elem)]

            e.loop(0, "%rows", 1, row, [("ptr", "%out"), ("ptr", "%c")])
        else:
            self._write_rows(done, counts, pixels)
        e.line("ret void")
        e.at(other)
        aside()
        e.end()

    def _steps_together(self) -> int:
        """Of a tile, in a round of its loop: tiles of few registers are short, and so is what a round may cost beside them."""
        if self.target.avx512:
            return 1
        whole = [n for n in TOGETHER if all(isinstance(k, int) and k % n == 0 for k in self.depths)]
        return whole[0] if whole else 1

    def _write_rows(self, done: Sequence[str], counts: Sequence[int], pixels: Sequence[Number]) -> None:
        """`rows` channels of a tile, from its registers through the block to their places: the first lanes of each vector."""
        e, t, h, v = self.e, self.t, self.h, len(counts)
        masks = [needed_mask([j < count for j in range(t.lanes)]) for count in counts]
        x = Index(e)
        sc = self.size(self.result.strides[1])
        fewest = self.m - (known(self.tiles) - 1) * h if isinstance(self.m, int) else 1
        for i in range(h):
            if i and (i == fewest or not isinstance(self.m, int)):
                more, stop = e.label(), e.label()
                e.branch_if(e.value(f"icmp sgt i64 %rows, {i}"), more, stop)
                e.at(stop)
                e.line("ret void")
                e.at(more)
            row = done[i * v : (i + 1) * v]
            values = self._finished(row, masks, "%image", x.add("%channel", i), pixels)
            place = e.gep("%out", x.mul(sc, i), t.elem)
            for j, value in enumerate(values):
                self.store_first(value, e.gep(place, j * t.lanes, t.elem), counts[j])

    def _read_by_block(self, x: Index) -> list[tuple[str, Number]]:
        """The addresses of what the op's block reads pixel by pixel, at a tile's first, and the steps between channels."""
        found: list[tuple[str, Number]] = []
        for k, letters in enumerate(self.op.attrs["maps"] if self.op.blocks else ()):
            if not letters.strip("ab"):
                continue
            t = self.op.operands[2 + k].type
            steps = dict(zip(letters, map(self.size, t.strides)))
            at = x.add(x.mul("%image", steps.get("a", 0)), x.mul("%channel", steps.get("b", 0)))
            base = self.e.gep(self.extra(k), x.add(at, "%pixel"), scalar.memory_elem(t.dtype))
            found.append((base, steps.get("b", 0)))
        return found

    def _write_edge(self) -> None:
        """`edge(args, tile, out, count, rows, image, channel, pixel)`: `count` neighbouring elements of each of the `rows`
        of a tile to their places, through the block."""
        e, t = self.e, self.t
        params = [
            "ptr %tile",
            "ptr %out",
            "i64 %count",
            "i64 %rows",
            "i64 %image",
            "i64 %channel",
            "i64 %pixel",
        ]
        self.begin_function("edge", *params)
        x = Index(e)
        sc, step = self.size(self.result.strides[1]), self._step()

        def row(r: str, p: list[str]) -> list[str]:
            channel = x.add("%channel", r)

            def vector(i: str, mask: str | None, _: list[str]) -> list[str]:
                value = load(e, t, e.gep(p[0], i, t.elem), mask)
                (value,) = self._finished([value], [mask], "%image", channel, [x.add("%pixel", i)])
                store(e, t, value, e.gep(p[1 if step == 1 else 0], i, t.elem), mask)
                return []

            if step == 1 or self.op.blocks:
                each_vector(e, t, self.target, "%count", vector)
            if step != 1:
                self.copy(p[0], p[1], "%count", step)
            return [e.gep(p[0], self.width, t.elem), e.gep(p[1], sc, t.elem)]

        e.loop(0, "%rows", 1, row, [("ptr", "%tile"), ("ptr", "%out")])
        e.end()

    def _step(self) -> Number:
        """From a result of a tile to its neighbour's place, in elements."""
        x = Index(self.e)
        return x.mul(self.size(self.three(self.result.strides[2:], 0)[2]), self.phases[0][2].step)

    def _fetch_next(self, x: Index, number: Number, table: str, b: str) -> None:
        """What the next block of pixels reads of an image that nobody copied comes from far: each tile of filters has its
        share of it come."""
        e, depth = self.e, known(self.depths[0])
        share = -(-depth // max(known(self.tiles), 1))
        begin = x.mul(number, share)

        def step(k: str, _: list[str]) -> None:
            where = e.value(f"load i64, ptr {e.gep(table, k, 'i64')}")
            self.fetch(e.gep(e.gep(b, where), self.width, self.t.elem), self.width * self.t.bytes)

        e.loop(begin, x.min(x.add(begin, share), depth), 1, step)

    # -- the phases ----------------------------------------------------------------------------------------------

    def _write_pack(self, number: int, phase: tuple[Run, ...], table_too: bool = True) -> None:
        """Body over tiles of filters: copies them in the order in which the tiles read them; the first also makes the
        table."""
        e = self.begin_body(f"pack{number}")
        x = Index(e)
        t_elem, strides = self.t.elem, self.filters.strides
        s0, s1 = self.size(strides[0]), self.size(strides[1])
        rest = [self.size(s) for s in self.three(strides[2:], 0)]
        mm, cc, kk, tt = (
            self.size(s) for s in (self.m, self.depth_channels, self.depths[number], self.tiles)
        )
        base, table, pack = self.pointer(self.fi), self.get("table"), self.get("pack")

        def each(body: Callable[[str, list[str], Number], None]) -> None:
            """`body(c, taps, k)` over channels, then taps."""
            counts = [self.size(r.taps) for r in phase]

            def channel(c: str, _: list[str]) -> None:
                def taps(axis: int, at: list[str], k: Number) -> None:
                    if axis == 3:
                        body(c, at, k)
                        return
                    e.loop(
                        0,
                        counts[axis],
                        1,
                        lambda i, _: taps(axis + 1, [*at, i], x.add(x.mul(k, counts[axis]), i)),
                    )

                taps(0, [], c)

            e.loop(0, cc, 1, channel)

        def entry(c: str, at: list[str], k: Number) -> None:
            plane: Number = c
            inside: Number = 0
            for axis, run, i in zip(self.axes, phase, at):
                u = x.add(self.size(run.start), x.mul(i, run.apart))
                z = x.div(u, axis.phases)
                plane = x.add(x.mul(plane, axis.phases), x.sub(u, x.mul(z, axis.phases)))
                inside = x.add(x.mul(inside, self.size(axis.pitch)), z)
            where = x.add(x.mul(plane, self.size(self.plane)), inside)
            e.line(f"store i64 {x.mul(where, self.t.bytes)}, ptr {e.gep(table, k, 'i64')}")

        if table_too:

            def table_of_phase() -> None:
                each(entry)

                def again(i: str, _: list[str]) -> None:
                    offset = e.value(f"load i64, ptr {e.gep(table, i, 'i64')}")
                    e.line(f"store i64 {offset}, ptr {e.gep(table, x.add(kk, i), 'i64')}")

                if self.far:  # behind the last step the next tile begins
                    e.loop(0, AHEAD, 1, again)

            e.when(e.value("icmp eq i64 %begin, 0"), table_of_phase)

        def tile(u: str, _: list[str]) -> None:
            group, number = x.div(u, tt), x.sub(u, x.mul(x.div(u, tt), tt))
            place = e.gep(pack, x.mul(u, x.mul(kk, self.h)), t_elem)

            def element(c: str, at: list[str], k: Number) -> None:
                offset: Number = 0
                for run, i, s in zip(phase, at, rest):
                    offset = x.add(offset, x.mul(x.add(run.t0, x.mul(i, run.tstep)), s))

                def row(r: str, _: list[str]) -> None:
                    channel = x.add(x.mul(number, self.h), r)
                    real = e.value(f"icmp slt i64 {channel}, {mm}")
                    known = x.min(channel, x.sub(mm, 1))
                    if self.forward:
                        where = x.add(x.mul(x.add(x.mul(group, mm), known), s0), x.mul(c, s1))
                    else:
                        where = x.add(x.mul(x.add(x.mul(group, cc), c), s0), x.mul(known, s1))
                    value = e.value(
                        f"load {t_elem}, ptr {e.gep(base, x.add(where, offset), t_elem)}, align {self.t.bytes}"
                    )
                    value = e.value(f"select i1 {real}, {t_elem} {value}, {t_elem} 0.0")
                    at_pack = e.gep(place, x.add(x.mul(k, self.h), r), t_elem)
                    e.line(f"store {t_elem} {value}, ptr {at_pack}, align {self.t.bytes}")

                e.loop(0, self.h, 1, row)

            each(element)

        e.loop("%begin", "%end", 1, tile)
        e.end()

    def _write_tiles(self, number: int, phase: tuple[Run, ...]) -> None:
        """Body over (image, group, depth, block of pixels): the block for all filters, to the result.  Merged images are
        one."""
        e = self.begin_body(f"tiles{number}")
        x = Index(e)
        d, rows, cols = phase
        h, width, elem = self.h, self.width, self.t.elem
        pitch_h, p = (self.size(a.pitch) for a in self.axes[1:])
        run: Number = self.size(self.runs[number])
        mm, kk, tt, cc = (
            self.size(s) for s in (self.m, self.depths[number], self.tiles, self.depth_channels)
        )
        planes = math.prod(a.phases for a in self.axes)
        out = self.result
        sn, sc = self.size(out.strides[0]), self.size(out.strides[1])
        sd, sh, sw = (self.size(s) for s in self.three(out.strides[2:], 0))
        result, table, pack, first = (
            self.pointer(2),
            self.get("table"),
            self.get("pack"),
            self.get("first", "i64"),
        )
        padded = self.pointer(self.si) if self.in_place else self.scratch(self.padded)
        tile = self.thread_scratch()
        plane, image, ow = self.size(self.plane), self.size(self.image), self.size(cols.count)
        firsts = [self.size(r.first) for r in phase]
        bases = [self.size(r.base) for r in phase]
        slice_rows, depths = self.size(rows.count), self.size(d.count)
        # what of a block is in one line has its places in a row; lines are `apart` in the copy
        apart: Number = run if self.gapless else p
        length: Number = run if self.gapless else ow
        long = x.mul(self.get("count", "i64"), run) if self.merged else run
        blocks = x.div(x.add(long, width - 1), width)
        one_line = self.gapless and not self.merged
        never_cut = isinstance(run, int) and run % width == 0
        end = self._end(self.runs[number])
        if end and (end[1] or known(self.runs[number]) % self.t.lanes == 0):
            never_cut = True

        def unit(u: str, _: list[str]) -> None:
            rest, block = self.divide(x, u, blocks)
            z: Number = 0
            i: Number = 0
            if not self.merged:
                rest, z = self.divide(x, rest, depths)
                rest, i = self.divide(x, rest, self.groups)
                rest, i = i, rest
            group = rest
            q0 = x.mul(block, width)
            q1 = x.min(x.add(q0, width), long)
            at = x.add(x.mul(x.add(firsts[0], z), pitch_h), firsts[1])
            at = x.add(x.add(x.mul(at, p), firsts[2]), 0 if self.whole_rows else q0)
            at = x.add(at, x.mul(x.mul(x.mul(group, cc), planes), plane))
            b = e.gep(padded, x.add(at, x.mul(i, image)), elem)
            heads = [b]
            if self.whole_rows:
                heads = []
                for j in range(self.v):
                    row, vector = self.divide(
                        x, x.add(x.mul(block, self.v), j), known(cols.count) // self.t.lanes
                    )
                    heads.append(e.gep(b, x.add(x.mul(row, p), x.mul(vector, self.t.lanes)), elem))
            y0: Number = 0 if one_line else x.div(q0, apart)
            y1: Number = 1 if one_line else x.add(x.div(x.sub(q1, 1), apart), 1)

            def line_at(y: Number) -> tuple[Number, Number, Number]:
                """(image, depth, row) of a line."""
                if not self.merged:
                    return x.add(first, i), z, y
                if self.gapless:
                    return x.add(first, y), 0, 0
                rest, row = self.divide(x, y, slice_rows)
                image, deep = self.divide(x, rest, depths)
                return x.add(first, image), deep, row

            function = "@KERNEL_NAME.tile"
            if end:
                full = e.value(f"icmp sle i64 {x.add(q0, width)}, {long}")
                function = e.value(f"select i1 {full}, ptr {function}, ptr @KERNEL_NAME.end{end[0]}")
            whole: str | None = None
            if self.direct and not never_cut:
                whole = e.value(f"icmp sle i64 {x.add(q0, width)}, {long}")
                if not one_line:
                    whole = e.value(f"and i1 {whole}, {e.value(f'icmp eq i64 {x.add(y0, 1)}, {y1}')}")

            def filters(number: str, _: list[str]) -> None:
                a = e.gep(pack, x.mul(x.add(x.mul(group, tt), number), x.mul(kk, h)), elem)
                in_group = x.mul(number, h)
                channel = x.add(x.mul(group, mm), in_group)
                count = x.min(x.sub(mm, in_group), h)
                to = e.gep(result, x.mul(channel, sc), elem)
                args: list[tuple[str, Number]] = [("ptr", "%args"), ("ptr", a), ("ptr", table)]
                args += [*(("ptr", b) for b in heads), ("ptr", tile), ("i64", kk)]
                if self.direct:
                    where, deep = line_at(y0)[:2]
                    inside = q0 if one_line else x.sub(q0, x.mul(y0, apart))
                    place = e.gep(to, x.add(x.add(x.mul(where, sn), x.mul(deep, sd)), inside), elem)
                    if whole is not None:
                        place = e.value(f"select i1 {whole}, ptr {place}, ptr null")
                    pixel = x.add(x.mul(x.mul(deep, slice_rows), ow), inside)
                    args += [("ptr", place), ("i64", count), ("i64", where), ("i64", channel), ("i64", pixel)]
                if self.in_place and not self.target.avx512:
                    self._fetch_next(x, number, table, b)
                self.call_by(function, *args)

                def line(y: str, _: list[str]) -> None:
                    begin = q0 if one_line else x.max(q0, x.mul(y, apart))
                    end = q1 if one_line else x.min(q1, x.add(x.mul(y, apart), length))
                    count_here = x.max(x.sub(end, begin), 0)
                    where, deep, row = line_at(0 if one_line else y)
                    inside = x.sub(begin, 0 if one_line else x.mul(y, apart))
                    column = x.add(bases[2], x.mul(inside, cols.step))
                    place = x.mul(x.add(bases[0], x.mul(deep, d.step)), sd)
                    place = x.add(place, x.mul(x.add(bases[1], x.mul(row, rows.step)), sh))
                    place = x.add(x.add(place, x.mul(where, sn)), x.mul(column, sw))
                    src = e.gep(tile, x.sub(begin, q0), elem)
                    dst = e.gep(to, place, elem)
                    pixel = x.add(x.mul(x.add(x.mul(deep, slice_rows), row), ow), inside)
                    ends: list[tuple[str, Number]] = [("ptr", "%args"), ("ptr", src), ("ptr", dst)]
                    ends += [
                        ("i64", count_here),
                        ("i64", count),
                        ("i64", where),
                        ("i64", channel),
                        ("i64", pixel),
                    ]
                    self.call("edge", *ends)

                if not self.direct:
                    e.loop(y0, y1, 1, line)
                elif whole is not None:
                    cut, after = e.label(), e.label()
                    e.branch_if(whole, after, cut)
                    e.at(cut)
                    e.loop(y0, y1, 1, line)
                    e.branch(after)
                    e.at(after)

            e.loop(0, tt, 1, filters)

        e.loop("%begin", "%end", 1, unit)
        e.end()
