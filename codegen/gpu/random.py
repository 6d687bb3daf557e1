"""MRG31k3p on a GPU: a stream to a thread.  A block's states, of six words each, go through shared memory, so that they are read and
written as they lie."""

from __future__ import annotations

from tcc.codegen import scalar
from tcc.codegen.emit import VecType
from tcc.codegen.gather import Places
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.kernel import (
    MOST_BLOCKS,
    GpuKernel,
    barrier,
    block_index,
    ceil_div,
    finish,
    grid_size,
    thread,
)
from tcc.codegen.index import at_most, plus, times
from tcc.codegen.random import WORDS, Streams
from tcc.ir import dims
from tcc.ir.core import Op

BLOCK = 64


def dense_states(op: Op) -> bool:
    """Whether states lie one after another."""
    return all(v.type.strides == (WORDS, 1) for v in op.operands[:2])


def stream_kernel(op: Op) -> GpuKernel:
    """A placed `mrg state, after, out` of dense states."""
    w = Places(op, LANE)
    e, dtype = w.e, w.types[2].dtype
    streams_size, count_size = w.types[0].shape[0], w.types[2].shape[0]
    word = VecType("i32")
    w.begin("void @KERNEL_NAME(ptr %args)")
    streams, count, stride = (w.size(s) for s in (streams_size, count_size, w.types[2].strides[0]))
    all_words = times(e, streams, str(WORDS))
    shared, member = e.call("ptr", "tcc.shared"), thread(e)
    own = e.gep(shared, times(e, member, str(WORDS)), "i32")
    s = Streams(w, 1)

    def each_word(first: str, body: list[str]) -> None:
        """Copies the words of the block's streams from `body[0]` to `body[1]`, each in its own place."""
        source, target = body

        def one(k: str, _: list[str]) -> None:
            value = e.value(f"load i32, ptr {e.gep(source, k, 'i32')}")
            e.line(f"store i32 {value}, ptr {e.gep(target, k, 'i32')}")

        left = e.value(f"sub i64 {all_words}, {first}")
        stop = at_most(e, left, str(WORDS * BLOCK))
        e.loop(member, stop, BLOCK, one)

    def group(number: str, _: list[str]) -> None:
        first = times(e, number, str(BLOCK))
        start = times(e, first, str(WORDS))
        each_word(start, [e.gep(w.pointers[0], start, "i32"), shared])
        barrier(e)
        stream = plus(e, first, member)

        def draw_all() -> None:
            x = [e.value(f"load i32, ptr {e.gep(own, k, 'i32')}") for k in range(WORDS)]

            def draw(k: str, x: list[str]) -> list[str]:
                following, drawn = s.step(x)
                at = times(e, plus(e, times(e, k, streams), stream), stride)
                here = e.gep(w.pointers[2], at, scalar.memory_elem(dtype))
                scalar.store(e, LANE, dtype, 1, s.number(drawn, dtype), here, None)
                return following

            left = e.value(f"sub i64 {plus(e, count, streams)}, {plus(e, stream, '1')}")
            steps = e.value(f"sdiv i64 {left}, {streams}")
            x = e.loop(0, steps, 1, draw, [(word, t) for t in x])
            for k, t in enumerate(x):
                e.line(f"store i32 {t}, ptr {e.gep(own, k, 'i32')}")

        e.when(e.value(f"icmp slt i64 {stream}, {streams}"), draw_all)
        barrier(e)
        each_word(start, [shared, e.gep(w.pointers[1], start, "i32")])
        barrier(e)  # the next streams take their place

    e.loop(
        block_index(e), e.value(f"sdiv i64 {plus(e, streams, str(BLOCK - 1))}, {BLOCK}"), grid_size(e), group
    )
    e.end()
    grid = dims.minimum(ceil_div(streams_size, BLOCK), MOST_BLOCKS), 1, 1
    return finish(e, "streams", w.slots.slots, grid, BLOCK, 4 * WORDS * BLOCK)
