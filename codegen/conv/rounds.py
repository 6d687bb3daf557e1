"""In which order images are copied and meet the filters: some at a time, whose copies stay in a near cache meanwhile.

Where threads have as many images, or there are many, each goes through its own, and waits for nobody; few images are shared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from tcc.codegen.conv.text import FIELDS, ROUND_ROOM, ConvText, Number, round_bytes
from tcc.codegen.index import Index
from tcc.ir.dims import Size, maximum, minimum, mul
from tcc.runtime import layout as at

MANY = 8  # images for each thread: it is no matter then if some threads have one more
Do = Callable[[str, Number, Number], None]  # has a body done for so many units of such a cost
Round = Callable[[Number, Do], None]  # has done what so many images need


def each_round(w: ConvText, first: Number, end: Number, most: Number, round: Round, do: Do) -> None:
    """All images from `first` on, `most` at a time."""
    x = Index(w.e)

    def some(here: str, _: list[str]) -> None:
        count = x.min(x.sub(end, here), most)
        w.put("first", here)
        w.put("fresh", x.equal(here, first))
        w.put("count", count)
        round(count, do)

    w.e.loop(first, end, most, some)


class ImageRounds:
    """Of the text of a convolution whose images have their layout; takes the scratch for their copies."""

    def __init__(self, w: ConvText, images: Size) -> None:
        self.w, self.images = w, images
        # a thread's fit an eighth of the second-level cache, for what the tiles read and write passes through it too
        self.each = w.fitting(images, w.image, w.target.l2_bytes // 8)
        self.room = maximum(
            w.fitting(images, w.image, ROUND_ROOM * round_bytes(w.target)), minimum(images, ROUND_ROOM)
        )
        w.padded = w.reserve(mul(w.image, self.room, w.t.bytes))

    def _threads(self) -> str:
        e = self.w.e
        return e.value(f"load i64, ptr {e.gep('%ctx', at.CTX_THREADS, 'i64')}")

    def write_own(self, round: Round) -> None:
        """Body `images`: a thread's own."""
        w = self.w
        e = w.begin_body("images")
        x = Index(e)
        w.record = e.value(f"alloca [{len(FIELDS)} x i64]")
        for field in ("args", "pack"):
            w.put(field, w.get(field))
        most = x.min(w.size(self.each), x.div(w.size(self.room), x.max(self._threads(), 1)))
        before = x.mul(x.mul("%thread", most), w.size(w.image))
        w.put("padded", e.gep(w.scratch(w.padded), before, w.t.elem))

        def do(body: str, units: Number, _: Number) -> None:
            all = (("i64", 0), ("i64", units), ("i64", "%thread"))
            w.call(body, ("ptr", "%ctx"), ("ptr", w.record), *all)

        each_round(w, "%begin", "%end", most, round, do)
        e.end()

    def make(self, round: Round, shared: bool = False) -> None:
        """In the kernel: all images, which threads share in any case if wanted."""
        w, e = self.w, self.w.e
        x = Index(e)
        images, room, threads = w.size(self.images), w.size(self.room), x.max(self._threads(), 1)

        def own() -> None:
            costs: list[Number] = []
            round(1, lambda _, units, cost: costs.append(x.mul(units, cost)))
            w.parallel("images", images, functools.reduce(x.add, costs))

        def together() -> None:
            w.put("padded", w.scratch(w.padded))
            each_round(w, 0, images, x.min(x.mul(w.size(self.each), threads), room), round, w.parallel)

        if shared:
            together()
            return
        rest = w.divide(x, images, threads)[1]
        many = x.either(x.equal(rest, 0), x.less(x.mul(threads, MANY - 1), images))
        alone = x.both(many, x.less(threads, x.add(room, 1)))
        e.when(e.value(f"icmp ne i64 {alone}, 0"), own)
        e.when(e.value(f"icmp eq i64 {alone}, 0"), together)
