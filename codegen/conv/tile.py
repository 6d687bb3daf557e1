"""The functions that a convolution's bodies call: its register tiles, and how finished elements get to their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tcc.codegen import scalar
from tcc.codegen.assembly import Reads, one_step
from tcc.codegen.conv.axes import Run
from tcc.codegen.conv.plan import ConvPlan
from tcc.codegen.conv.text import Number, needed_mask
from tcc.codegen.conv.walk import Meets, Walk, regular_walk
from tcc.codegen.emit import VecType
from tcc.codegen.epilogue import emit_block
from tcc.codegen.index import Index
from tcc.codegen.vectors import LINE, each_vector, fetch, load, splat, store
from tcc.ir.core import Value
from tcc.ir.dims import Size, known

AT_ONCE = 32  # lines that a core fetches with little delay: what asks for more at a time waits, and all that follows it
AHEAD = 6  # steps of a tile by which vectors that lie beyond the first-level cache are fetched before they are read
MEMORY = 300  # cycles until a line comes from memory
LONG_BLOCK = 64  # ops of a tile's block for all of its vectors, past which they are written once, in a loop over the rows


class ConvTile(ConvPlan):
    woven = 1  # lines of a tile's copy whose elements take turns in a row of results
    woven_apart = 0  # elements from one of these to the next

    def find_walks(self) -> None:
        """How the tiles of each phase go through their steps, by numbers or by the table; once images have their layout."""
        self.walks = [self._walk(phase, self._places(phase)) for phase in self.phases]

    def _walk(self, phase: tuple[Run, ...], places: Sequence[Meets]) -> Walk | None:
        sizes = [self.plane, *(a.pitch for a in self.axes), *(s for r in phase for s in (r.start, r.taps))]
        if self.target.avx512 or not all(isinstance(s, int) for s in sizes):
            return None
        return regular_walk(self._channels_together(), [r.taps for r in phase], places)

    def _channels_together(self) -> Size:
        """What a tile goes through in whole rounds."""
        return self.depth_channels

    def _places(self, phase: tuple[Run, ...]) -> list[Meets]:
        """Of the operands of a tile's step: the filters' elements, and the vectors of pixels."""
        bytes, x = self.t.bytes, Index(self.e)

        def filters(channel: int, taps: Sequence[int]) -> Number:
            k = channel
            for run, i in zip(phase, taps, strict=True):
                k = k * known(run.taps) + i
            return k * self.h * bytes

        def pixels(channel: int, taps: Sequence[int]) -> Number:
            return (
                channel * self.width * bytes
                if self.panel
                else x.mul(self.distance(phase, channel, taps), bytes)
            )

        return [filters, pixels]

    def walk_of(self, number: int) -> int:
        """The first phase whose tiles go through their steps as those of this one do."""
        return self.walks.index(self.walks[number])

    def write_tile(self, name: str, number: int, v: int, last: int = 0) -> None:
        """`name(args, a, table, b.., c, k, out, rows, image, channel, pixel)`: [h, v vectors] are the sums over k of a[k, h]
        times the vectors at b + table[k], of which each has its own b where rows are whole vectors.  They go through the
        block to `rows` channels at `out`, or as they are to c where that is null.  Of the last vector only `last` lanes are
        results.  The distances of the phase `number` stand in the text where they are regular."""
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
        reads = self._tile_reads(counts)
        fetch_some = (self._fetch_results(v) if self.direct else None) or (lambda k: None)
        start: list[tuple[VecType, str]] = [(t, "zeroinitializer")] * (h * v)
        if walk := self.walks[number]:
            pointers = [(0, "%a"), *((1, f"%b{j}") for j in range(self.heads))]
            round = walk.round_of(e, self.target, t, reads, [operand for operand, _ in pointers], fetch_some)
            done = walk.through(e, walk.levels[0][0], pointers, start, round)
        else:
            done = self._by_table(start, reads, fetch_some)

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
            self._write_copied_rows(counts, pixels)
        else:
            self._write_rows(done, counts, pixels)
        e.line("ret void")
        e.at(other)
        aside()
        e.end()

    def _lane_masks(self, counts: Sequence[int]) -> list[str | None]:
        """Of vectors with so many lanes each."""
        return [needed_mask([j < count for j in range(self.t.lanes)]) for count in counts]

    def _by_table(
        self, start: Sequence[tuple[VecType, str]], reads: Reads, before: Callable[[Number], None]
    ) -> list[str]:
        """The sums after %k steps, whose distances are the table's; `before` writes what is in front of each."""
        e, x = self.e, Index(self.e)
        heads = [f"%b{j}" for j in range(self.heads)]

        def one(k: str, s: list[str]) -> list[str]:
            where: Number
            if self.panel:
                where = x.mul(k, self.width * self.t.bytes)
            else:
                where = e.value(f"load i64, ptr {e.gep('%table', k, 'i64')}")
            if self.far and not self.panel:
                soon = e.value(f"load i64, ptr {e.gep('%table', x.add(k, AHEAD), 'i64')}")
                for b in heads:
                    self.fetch(
                        e.gep(b, soon), len(start) // self.h // self.heads * self.t.lanes * self.t.bytes
                    )
            before(k)
            done = one_step(e, self.t, reads, [s[0], *(e.gep(b, where) for b in heads)], s[1:])
            return [e.gep(s[0], self.h, self.t.elem), *done]

        return e.loop(0, "%k", 1, one, [("ptr", "%a"), *start])[1:]

    def _tile_reads(self, counts: Sequence[int]) -> Reads:
        """Of a step: the filters' elements, and vectors with so many lanes, which nothing but the image itself lacks."""
        bytes, vectors = self.t.bytes, range(len(counts))
        elements = tuple((0, i * bytes) for i in range(self.h))
        masks = tuple(self._lane_masks(counts)) if self.in_place and not self.panel else ()
        if self.whole_rows:
            return Reads(elements, tuple((1 + j, 0) for j in vectors))
        return Reads(
            elements, tuple((1, j * self.t.lanes * bytes) for j in vectors), masks if any(masks) else ()
        )

    def _fetch_results(self, v: int) -> Callable[[Number], None] | None:
        """The result's lines, and those that the block reads, arrive while the sums are made, or those of the block of
        pixels after next where sums are short: asked for at once, where they are few, or by what is given back, for each step a part."""
        e, t, depth = self.e, self.t, self.depths[0]
        x = Index(e)
        sc = self.size(self.result.strides[1])
        ahead = 2 * self.width * t.bytes if self._results_come_late() else 0
        lines = [
            (e.gep(e.gep(place, x.mul(apart, i), t.elem), byte + ahead), write)
            for place, apart, write in [("%out", sc, 1), *((p, s, 0) for p, s in self._read_by_block(x))]
            for i in range(self.h)
            for byte in range(0, v * t.lanes * t.bytes, LINE)
        ]
        if len(lines) <= AT_ONCE or not isinstance(depth, int) or not depth:
            for line, write in lines:
                fetch(e, line, write)
            return None
        each = -(-len(lines) // depth)  # lines of a step
        every = 1 << max(depth // len(lines), 1).bit_length() - 1  # steps with the same, a power of two
        places = e.value(f"alloca [{len(lines)} x ptr]")
        for i, (line, _) in enumerate(lines):
            e.line(f"store ptr {line}, ptr {e.gep(places, i, 'ptr')}")

        def some(k: Number) -> None:
            for i in range(each):
                number = x.min(x.add(x.mul(x.div(k, every), each), i), len(lines) - 1)
                fetch(e, e.value(f"load ptr, ptr {e.gep(places, number, 'ptr')}"), 0)

        return some

    def _results_come_late(self) -> bool:
        """Whether a tile's sums take less time than lines from memory."""
        depth = self.depths[0]
        return isinstance(depth, int) and depth * self.h * self.v < MEMORY * self.target.multiply_adds

    def _write_copied_rows(self, counts: Sequence[int], pixels: Sequence[Number]) -> None:
        """As `_write_rows`, from the tile's copy at %c, so that the block's text stands there once."""
        e, t = self.e, self.t
        x, sc = Index(e), self.size(self.result.strides[1])
        masks = self._lane_masks(counts)

        def row(r: str, p: list[str]) -> list[str]:
            place, tile = p
            values = [load(e, t, e.gep(tile, j * t.lanes, t.elem)) for j in range(len(counts))]
            values = self._finished(values, masks, "%image", x.add("%channel", r), pixels)
            for j, value in enumerate(values):
                self.store_first(value, e.gep(place, j * t.lanes, t.elem), counts[j])
            return [e.gep(place, sc, t.elem), e.gep(tile, self.width, t.elem)]

        e.loop(0, "%rows", 1, row, [("ptr", "%out"), ("ptr", "%c")])

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

    def _write_rows(self, done: Sequence[str], counts: Sequence[int], pixels: Sequence[Number]) -> None:
        """`rows` channels of a tile, from its registers through the block to their places: the first lanes of each vector."""
        e, t, h, v = self.e, self.t, self.h, len(counts)
        masks = self._lane_masks(counts)
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

    def write_edge(self) -> None:
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
                value = (
                    self._woven_vector(p[0], i)
                    if self.woven > 1
                    else load(e, t, e.gep(p[0], i, t.elem), mask)
                )
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

    def _woven_vector(self, lines: str, i: Number) -> str:
        """Of elements that lines take turns with."""
        e, t = self.e, self.t
        part = VecType(t.elem, t.lanes // self.woven)
        at = Index(e).div(i, self.woven)
        parts = [
            load(e, part, e.gep(e.gep(lines, at, t.elem), n * self.woven_apart, t.elem))
            for n in range(self.woven)
        ]
        while len(parts) > 1:  # the first half's with the second's
            half = len(parts) // 2
            order = ", ".join(f"i32 {j + k * part.lanes}" for j in range(part.lanes) for k in range(2))
            pairs = zip(parts[:half], parts[half:], strict=True)
            parts = [
                e.value(f"shufflevector {part} {a}, {part} {b}, <{2 * part.lanes} x i32> <{order}>")
                for a, b in pairs
            ]
            part = VecType(t.elem, 2 * part.lanes)
        return parts[0]

    def _step(self) -> Number:
        """From a result of a tile to its neighbour's place, in elements."""
        x = Index(self.e)
        return x.mul(self.size(self.three(self.result.strides[2:], 0)[2]), self.phases[0][2].step)

    # -- the filters, and the table of distances ------------------------------------------------------------------

    def write_pack(self, number: int, phase: tuple[Run, ...], table_too: bool = True) -> None:
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
        if table_too:
            e.when(e.value("icmp eq i64 %begin, 0"), lambda: self._write_table(phase, table, kk))

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

            self.each_step(phase, element)

        e.loop("%begin", "%end", 1, tile)
        e.end()

    def each_step(self, phase: tuple[Run, ...], body: Callable[[str, list[str], Number], None]) -> None:
        """`body(c, taps, k)` over channels, then taps: the steps k of a tile."""
        e, x = self.e, Index(self.e)
        counts = [self.size(r.taps) for r in phase]

        def channel(c: str, _: list[str]) -> None:
            def taps(axis: int, at: list[str], k: Number) -> None:
                if axis == 3:
                    body(c, at, k)
                    return
                count = counts[axis]
                e.loop(0, count, 1, lambda i, _: taps(axis + 1, [*at, i], x.add(x.mul(k, count), i)))

            taps(0, [], c)

        e.loop(0, self.size(self.depth_channels), 1, channel)

    def distance(self, phase: tuple[Run, ...], c: Number, taps: Sequence[Number]) -> Number:
        """In elements of the padded image, of what a tap of a phase meets of channel c."""
        x = Index(self.e)
        plane: Number = c
        inside: Number = 0
        for axis, run, i in zip(self.axes, phase, taps):
            u = x.add(self.size(run.start), x.mul(i, run.apart))
            z = x.div(u, axis.phases)
            plane = x.add(x.mul(plane, axis.phases), x.sub(u, x.mul(z, axis.phases)))
            inside = x.add(x.mul(inside, self.size(axis.pitch)), z)
        return x.add(x.mul(plane, self.size(self.plane)), inside)

    def _write_table(self, phase: tuple[Run, ...], table: str, depth: Number) -> None:
        """The distance in bytes, for each of a tile's `depth` steps, of the vectors that it meets."""
        e, x = self.e, Index(self.e)

        def entry(c: str, at: list[str], k: Number) -> None:
            where = self.distance(phase, c, at)
            e.line(f"store i64 {x.mul(where, self.t.bytes)}, ptr {e.gep(table, k, 'i64')}")

        self.each_step(phase, entry)

        def again(i: str, _: list[str]) -> None:
            offset = e.value(f"load i64, ptr {e.gep(table, i, 'i64')}")
            e.line(f"store i64 {offset}, ptr {e.gep(table, x.add(depth, i), 'i64')}")

        if self.far:  # behind the last step the next tile begins
            e.loop(0, AHEAD, 1, again)
