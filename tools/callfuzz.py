"""Calls a model's library wrongly, again and again: every such call must be refused in words that name the culprit.

python -m tcc.tools.callfuzz libmlp.so mlp --calls 100000

Every array, tensor, list and workspace lies between two pages that nobody may touch, at one end or the other of its memory.
Calls without a mistake are made in between, and must be taken.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tcc.runtime import library as loader
from tcc.runtime.library import Spec, Tensor

PAGE = mmap.PAGESIZE
LARGEST = 40  # of a size
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Wrong(AssertionError):
    """A call that was taken, or refused, and should not have been."""


class Guarded:
    """Memory of up to `most` bytes between two pages that may not be touched."""

    def __init__(self, most: int) -> None:
        self.bytes = -(-max(most, 1) // PAGE) * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = _libc.mmap(None, self.bytes + 2 * PAGE, 0, flags, -1, 0)
        self.start = int(base) + PAGE
        if _libc.mprotect(self.start, self.bytes, mmap.PROT_READ | mmap.PROT_WRITE):
            raise MemoryError("no memory for guarded pages")

    def place(self, size: int, align: int, at_end: bool) -> int:
        """The address of `size` bytes at one end."""
        return self.start + ((self.bytes - size) // align * align if at_end else 0)


class Slot:
    """A tensor of an entry, with guarded memory for its struct, its sizes, its strides and its data."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.name = spec, spec.name.decode()
        self.axes = [s for s in spec.shape.decode().split(",") if s]
        self.item = spec.bits // 8
        most = self.item
        for size in self.axes:
            most *= int(size) if size.isdecimal() else LARGEST
        self.data, self.struct = Guarded(most), Guarded(ctypes.sizeof(Tensor))
        self.shape, self.strides = Guarded(8 * len(self.axes)), Guarded(8 * len(self.axes))

    def lay(self, sizes: dict[str, int], at_end: bool) -> Tensor:
        """A right tensor of these sizes."""
        numbers = [int(s) if s.isdecimal() else sizes[s] for s in self.axes]
        self.count = int(np.prod(numbers, dtype=np.int64))
        self.at = self.data.place(self.count * self.item, self.item, at_end)
        tensor = Tensor.from_address(self.struct.place(ctypes.sizeof(Tensor), 8, at_end))
        self.numbers = (ctypes.c_int64 * len(numbers)).from_address(
            self.shape.place(8 * len(numbers), 8, at_end)
        )
        self.numbers[:] = numbers  # type: ignore[assignment]
        self.steps = (ctypes.c_int64 * len(numbers)).from_address(
            self.strides.place(8 * len(numbers), 8, at_end)
        )
        self.steps[:] = [int(np.prod(numbers[i + 1 :], dtype=np.int64)) for i in range(len(numbers))]
        tensor.data, tensor.device = self.at, (1, 0)
        tensor.ndim, tensor.code, tensor.bits, tensor.lanes = len(numbers), self.spec.code, self.spec.bits, 1
        tensor.shape = ctypes.cast(self.numbers, ctypes.POINTER(ctypes.c_int64))
        tensor.strides, tensor.byte_offset = None, 0
        self.tensor = tensor
        return tensor

    def array(self) -> np.ndarray[Any, Any]:
        memory = (ctypes.c_uint8 * (self.count * self.item)).from_address(self.at)
        return np.frombuffer(memory, loader.dtype_of(self.spec))


class Caller:
    """One entry of a model, called rightly and wrongly."""

    def __init__(self, model: loader.Model, entry: str, seed: int) -> None:
        self.model, self.name, self.rng = model, entry, random.Random(seed)
        info = next(e for e in model.info.entries[: model.info.entry_count] if e.name.decode() == entry)
        self.inputs = [Slot(s) for s in info.tensors[: info.arguments]]
        self.outputs = [Slot(s) for s in info.tensors[info.arguments : info.arguments + info.results]]
        self.slots = [*self.inputs, *self.outputs]
        self.lists = [Guarded(8 * len(s)) for s in (self.inputs, self.outputs)]
        self.run = model.c_function(f"{entry}_run", ctypes.c_int32)
        self.size = model.c_function(f"{entry}_workspace_size", ctypes.c_int64)
        self.run.argtypes = [ctypes.c_void_p] * 4
        self.size.argtypes = [ctypes.c_void_p] * 2
        self.seen: Counter[int] = Counter()
        self.workspaces: dict[int, Guarded] = {}

    def prepare(self) -> None:
        """A right call."""
        rng = self.rng
        names = {a for s in self.slots for a in s.axes if not a.isdecimal()}
        sizes = {n: rng.choice(self._sizes(n)) for n in sorted(names)}
        for slot in self.slots:
            slot.lay(sizes, rng.random() < 0.5)
        for slot in self.inputs:
            slot.array()[...] = rng.random() if slot.spec.code == 2 else 0
        self.context: int | None = self.model.context.value
        self.given = [self.listed(0, self.inputs), self.listed(1, self.outputs)]
        wanted = self.size(self.context, self.given[0])
        if wanted > 0 and wanted not in self.workspaces:
            self.workspaces[wanted] = Guarded(wanted)
        block = self.workspaces.get(wanted)
        self.workspace: int | None = (
            block.place(wanted, 64, rng.random() < 0.5) if block and rng.random() < 0.8 else None
        )

    def _sizes(self, name: str) -> list[int]:
        """Some of those that the model takes for a name, and none above LARGEST."""
        least, most = 0, LARGEST
        for slot in self.slots:
            for axis in (i for i, a in enumerate(slot.axes) if a == name):
                least, most = max(least, slot.spec.least[axis]), min(most, slot.spec.most[axis])
        return [n for n in (0, 1, 2, 3, 7, 16, 17, 33, least, most) if least <= n <= most]

    def listed(self, which: int, slots: Sequence[Slot]) -> int:
        at = self.lists[which].place(8 * len(slots), 8, True)
        (ctypes.c_void_p * len(slots)).from_address(at)[:] = [ctypes.addressof(s.tensor) for s in slots]
        return at

    def mistakes(self) -> list[tuple[str, Callable[[], Any]]]:
        """(whom the message names, what makes the call wrong), for what can be done wrong in this call."""
        rng, made = self.rng, []

        def put(name: str, make: Callable[[], Any]) -> None:
            made.append((name, make))

        def set_list(which: int, index: int) -> None:
            (ctypes.c_void_p * (index + 1)).from_address(self.given[which])[index] = None

        put("context", lambda: setattr(self, "context", None))
        for which, slots in enumerate((self.inputs, self.outputs)):
            for i, s in enumerate(slots):
                put(s.name, partial(set_list, which, i))
        for k, s in enumerate(self.slots):
            t = s.tensor

            def change(t: Tensor, field: str, value: Any) -> Callable[[], Any]:
                return lambda: setattr(t, field, value)

            put(s.name, change(t, "ndim", rng.choice([-1, t.ndim + 1, 2**31 - 1, -(2**31)])))
            put(
                s.name,
                change(t, "code", rng.choice([c for c in (0, 1, 2, 3, 4, 5, 6, 7, 255) if c != t.code])),
            )
            put(
                s.name,
                change(t, "bits", rng.choice([b for b in (0, 1, 8, 16, 32, 64, 128, 255) if b != t.bits])),
            )
            put(s.name, change(t, "lanes", rng.choice([0, 2, 65535])))
            put(s.name, change(t, "device", (rng.choice([0, 2, 4, -1]), 0)))
            if t.ndim:
                put(s.name, change(t, "shape", None))
                axis = rng.randrange(t.ndim)
                sizes = [-1, -(2**63), 2**63 - 1, 2**62 + k, 2**47 + k, 1000 * (k + 1) + 41]
                size = rng.choice(sizes)
                put("", partial(s.numbers.__setitem__, axis, size))
            if s.count:  # one mistake at most in where the data lie, for two may make it right
                places = [change(t, "data", None)]
                if s.item > 1:
                    places.append(change(t, "data", s.at + rng.randrange(1, min(8, s.item))))
                    places += [change(t, "byte_offset", n) for n in (1, 2**64 - 1)]
                put(s.name, rng.choice(places + self.shared(s, k)))
            if s.count > 1:

                def spread(
                    s: Slot = s, axis: int = next(i for i, n in enumerate(s.numbers) if n > 1)
                ) -> None:
                    s.tensor.strides = ctypes.cast(s.steps, ctypes.POINTER(ctypes.c_int64))
                    s.steps[axis] = rng.choice([0, -1, s.steps[axis] + 1, 2**62])

                put(s.name, spread)
        if self.workspace:
            at = rng.choice([self.workspace + rng.choice([1, 8, 32]), self.model.context.value])
            put("workspace", lambda: setattr(self, "workspace", at))
        return made

    def shared(self, slot: Slot, k: int) -> list[Callable[[], Any]]:
        """What has a result share memory with another tensor, or with the context."""
        if k < len(self.inputs):
            return []
        others = [o for o in self.slots if o is not slot and o.count and o.item == slot.item]
        places = [o.at + (o.count - 1) * o.item for o in others] + [self.model.context.value]
        return [partial(setattr, slot.tensor, "data", at) for at in places]

    def call(self, wrong: int) -> None:
        """One call with so many mistakes; Wrong if the library does not see the one, or sees one where there is none."""
        self.prepare()
        state = {n: v.copy() for n, v in self.model.state.items()}
        chosen = self.rng.sample(self.mistakes(), wrong)
        for _, make in chosen:
            make()
        status = self.run(self.context, *self.given, self.workspace)
        said = self.model._error().decode()
        self.seen[status] += 1
        if not wrong:
            if status:
                raise Wrong(f"{self.name} refused a right call: {said}")
            for n, v in state.items():
                self.model.state[n][...] = v
            return
        if not status:
            raise Wrong(f"{self.name} took a wrong call: {[name for name, _ in chosen]}")
        names = [name for name, _ in chosen]
        if not said.startswith(f"{self.model.name}_{self.name}: ") or not (
            "" in names or any(n in said for n in names)
        ):
            raise Wrong(f"{self.name}: {names} were wrong, and it says: {said}")
        if any(
            not np.array_equal(v, self.model.state[n], equal_nan=v.dtype.kind == "f")
            for n, v in state.items()
        ):
            raise Wrong(f"{self.name}: a refused call changed the state")


def fuzz(library: str, name: str, calls: int, seed: int = 0, weights: str | None = None) -> Counter[int]:
    """So many calls of all entries; how often each status came."""
    model = loader.load(library, weights=weights, name=name)
    seen: Counter[int] = Counter()
    callers = [Caller(model, entry, seed) for entry in model.entries]
    for number in range(calls):
        callers[number % len(callers)].call(0 if number % 10 == 0 else 1 + number % 3)
    for caller in callers:
        seen += caller.seen
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library")
    parser.add_argument("name")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights")
    args = parser.parse_args()
    for status, count in sorted(fuzz(args.library, args.name, args.calls, args.seed, args.weights).items()):
        print(f"status {status}: {count} calls")


if __name__ == "__main__":
    main()
