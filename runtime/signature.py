"""What a compiled function takes, keeps and gives: the facts that its native entry and its Python slow path agree on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from tcc.ir.dims import Size, evaluate, mul, names_of
from tcc.ir.types import itemsize
from tcc.runtime.layout import Frame
from tcc.runtime.panels import KeptSpec

Returns = Literal["array", "list", "none"]
SHOWN = 12  # arrays whose shapes a message gives, inputs first


class SizeMismatch(ValueError):
    """An argument or a shared variable has other sizes than this code was compiled for."""


class InputSpec(NamedTuple):
    """A C-contiguous array.  A name in `shape` is bound at its first plain occurrence and checked at the others.

    A scalar (rank 0) may be given as NumPy's scalar of that dtype too, and as a Python number of the same kind and value
    if `numbers` says so; `rounding` lets a Python float lose digits.
    """

    dtype: str
    shape: tuple[Size, ...] = ()
    numbers: bool = True
    rounding: bool = False
    name: str = ""

    @property
    def rank(self) -> int:
        return len(self.shape)


class SharedSpec(NamedTuple):
    """A container that the function reads, or reads and writes.  A `constant` is the function's own: nobody else writes it."""

    dtype: str
    shape: tuple[Size, ...] = ()
    written: bool = False
    name: str = ""
    constant: bool = False


class OutputSpec(NamedTuple):
    """A new array.  `late`: `run` makes it by `tcc_output`.  `adopt`: it becomes the buffer of that container instead of
    being returned; such outputs come last.
    """

    dtype: str
    shape: tuple[Size, ...] = ()
    late: bool = False
    adopt: int | None = None


@dataclass(frozen=True)
class Signature:
    """`arena` and `scratch` (for each thread) are in bytes, `work` in estimated nanoseconds of one thread; `late` says
    that the body may call `tcc_late_alloc`, `kept` which panels of its containers it may read.  ValueError if a size uses a name that no input and no container binds.
    """

    inputs: tuple[InputSpec, ...] = ()
    shared: tuple[SharedSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    returns: Returns = "list"
    arena: Size = 0
    scratch: Size = 0
    work: Size = 0
    late: bool = False
    kept: tuple[KeptSpec, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.frame.sizes)
        for size in self._sizes():
            missing = names_of(size) - known
            if missing:
                raise ValueError(
                    f"the size {size} needs {', '.join(sorted(missing))}, which no argument's shape gives"
                )

    @property
    def arguments(self) -> tuple[InputSpec | SharedSpec, ...]:
        """What gives sizes, in the order in which they are bound: inputs from left to right, then containers."""
        return (*self.inputs, *self.shared)

    def _sizes(self) -> Iterator[Size]:
        for spec in self.arguments:
            yield from spec.shape
        for output in self.outputs:
            yield from () if output.late else output.shape
        yield from (self.arena, self.scratch, self.work)

    @cached_property
    def frame(self) -> Frame:
        """Its sizes stand in the order in which they are bound."""
        names: dict[str, None] = {}
        for spec in self.arguments:
            for size in spec.shape:
                if not isinstance(size, int) and size.plain:
                    names[size.plain] = None
        return Frame(len(self.inputs), len(self.shared) + len(self.kept), len(self.outputs), tuple(names))

    def bytes(self, sizes: Mapping[str, int], threads: int) -> int:
        """What a call takes that brings these sizes, but for what only running tells."""
        wanted = [self.arena, *[self.scratch] * threads]
        wanted += [mul(itemsize(o.dtype), *o.shape) for o in self.outputs if not o.late]
        return sum(evaluate(size, sizes) for size in wanted)

    def bind(
        self, inputs: Sequence[tuple[int, ...]], shared: Sequence[tuple[int, ...]] = ()
    ) -> Mapping[str, int]:
        """The value of each name, given all shapes; SizeMismatch says which argument does not fit and why."""
        specs: list[tuple[InputSpec | SharedSpec, tuple[int, ...]]] = list(
            zip(self.arguments, (*inputs, *shared), strict=True)
        )
        known: dict[str, int] = {}
        giver: dict[str, str] = {}
        for position, (spec, shape) in enumerate(specs):
            for axis, (size, got) in enumerate(zip(spec.shape, shape, strict=True)):
                if not isinstance(size, int) and size.plain and size.plain not in known:
                    known[size.plain] = got
                    giver[size.plain] = f"{_label(spec, position)}, axis {axis}"
        for position, (spec, shape) in enumerate(specs):
            for axis, (size, got) in enumerate(zip(spec.shape, shape, strict=True)):
                wanted = evaluate(size, known)
                if wanted == got:
                    continue
                seen = [f"{_label(s, k)} {tuple(g)}" for k, (s, g) in enumerate(specs) if g]
                more = [f"and {len(seen) - SHOWN} more"] if len(seen) > SHOWN else []
                shapes = ", ".join([*seen[:SHOWN], *more])
                reason = "; ".join(f"{n} = {known[n]} is from {giver[n]}" for n in sorted(names_of(size)))
                if isinstance(size, int):
                    wish = f"{size}"
                elif size.plain:
                    wish = f"{wanted}, the size of {giver[size.plain]}"
                else:
                    wish = f"{size} = {wanted} ({reason})"
                raise SizeMismatch(
                    f"{_label(spec, position)}, axis {axis}: its size is {got}, wanted {wish}\nShapes: {shapes}"
                )
        for size in (s for o in self.outputs if not o.late for s in o.shape):
            if evaluate(size, known) < 0:
                raise SizeMismatch(f"a result would have the size {size} = {evaluate(size, known)}")
        return known


def _label(spec: InputSpec | SharedSpec, position: int) -> str:
    return spec.name or f"argument {position}"
