"""`tcc.scan_checkpoints`: a scan whose gradient keeps the states of every N-th step alone, and makes the others again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tcc import build
from tcc.creation import zeros
from tcc.elemwise import lt, switch
from tcc.joining import join
from tcc.loops import as_list, scan
from tcc.updates import OrderedUpdates
from tcc.variable import as_variable


def scan_checkpoints(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    name: str = "checkpointscan_fn",
    n_steps: Any = None,
    save_every_N: int = 10,
    padding: bool = True,
) -> tuple[Any, OrderedUpdates]:
    """(states after every `save_every_N` steps and after the last one, updates) of `scan(fn, ...)`.

    The gradient needs memory for n_steps / save_every_N + save_every_N steps, and one more run of the forward steps (T. Chen
    et al., Training Deep Nets with Sublinear Memory Cost, 2016).  Every output is a state with the tap -1.  Sequences whose
    length is no multiple of `save_every_N` are padded, unless `padding` is False: the states then stay as they are.
    """
    whole = [as_variable(s) for s in _reject_taps("sequence", as_list(sequences))]
    first = [as_variable(v) for v in _reject_taps("output", as_list(outputs_info))]
    if not first or any(v is None for v in first):
        raise RuntimeError("scan_checkpoints: every output must be a state, with its initial value")
    if not whole and n_steps is None:
        raise RuntimeError("scan_checkpoints: give a sequence or n_steps")
    n: Any = build.size_of(whole[0], 0) if n_steps is None else build.as_size(n_steps, "n_steps")
    each = int(save_every_N)
    if each < 1:
        raise ValueError(f"save_every_N must be positive, got {save_every_N}")
    rounds = build.size_arithmetic("floordiv", build.size_arithmetic("add", n, each - 1), each)
    total = build.size_arithmetic("mul", rounds, each)
    exact = not padding or (isinstance(n, int) and n % each == 0)
    chunks = [_chunks(s[:n], n, total, rounds, each, exact) for s in whole]
    numbers: Any = build.node("iota", shape=[total], axis=0, dtype="i64").result
    numbers = numbers.reshape((rounds, each))
    count, states = len(whole), len(first)

    def step(number: Any, *args: Any) -> Any:
        made = fn(*args)
        if exact:
            return made
        new = as_list(made[0] if isinstance(made, tuple) and isinstance(made[0], list | tuple) else made)
        kept = [
            switch(lt(number, build.size_variable(n)), a, b)
            for a, b in zip(new, args[count : count + states])
        ]
        return (kept, made[1]) if isinstance(made, tuple) and isinstance(made[1], dict) else kept

    def chunk(numbers: Any, *args: Any) -> Any:
        made, updates = scan(
            step,
            [numbers, *args[:count]],
            list(args[count : count + states]),
            list(args[count + states :]),
            return_list=True,
        )
        for m in made:
            if m.owner.name == "scan":  # one step is no loop
                m.owner.attrs["remake"] = True
        return [m[-1] for m in made], updates

    return scan(chunk, [numbers, *chunks], first, as_list(non_sequences), name=name)


def _reject_taps(what: str, given: list[Any]) -> list[Any]:
    if any(isinstance(v, dict) for v in given):
        raise RuntimeError(f"scan_checkpoints: a {what} cannot have taps")
    return given


def _chunks(s: Any, n: Any, total: Any, rounds: Any, each: int, exact: bool) -> Any:
    rest = [build.size_of(s, a) for a in range(1, s.type.ndim)]
    if not exact:
        missing = build.size_arithmetic("sub", total, n)
        s = join(0, s, zeros((missing, *rest), dtype=s.type.dtype))
    return s.reshape((rounds, each, *rest))
