"""What is measured: a case has a name, inputs, a form, and in its topic's module one function for each peer.

The form says what is done with that function `f`, which takes the inputs in their order; the peers' modules do it:

    Values     f gives the results
    Slopes     f gives a value; the results are it and its derivatives: a cost's gradient, or a pullback of a cotangent
    Descent    f gives a cost; a run is one step of gradient descent on the parameters, which stay where they are
    Update     f gives results and the new state; libraries with mutable arrays change the state in place

In NumPy, which differentiates nothing, `f` gives all results itself and changes parameters in place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]
Rng = np.random.Generator
Function = Callable[..., Any]
Functions = dict[str, Function]  # kind -> f

RATE = 0.01  # of gradient descent
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")  # where the peers run: cpu, cuda, or emulator for tcc


@dataclass(frozen=True)
class Values:
    """`held` names inputs that stay the same from call to call: parameters of a model that answers."""

    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slopes:
    """Derivatives by the inputs named; `cotangent` names the input that the pullback starts from, and f does not get it."""

    by: tuple[str, ...]
    cotangent: str | None = None
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Descent:
    """`held` names the parameters."""

    held: tuple[str, ...]


@dataclass(frozen=True)
class Update:
    """`held` names the state."""

    held: tuple[str, ...]


Form = Values | Slopes | Descent | Update


@dataclass(frozen=True)
class Work:
    """The least that the answer needs: multiplications and additions, bytes read from and written to memory."""

    flops: float = 0
    read: float = 0
    written: float = 0
    dtype: str = "float32"  # of the multiplications


@dataclass(frozen=True)
class Case:
    """`kind` selects the function; `inputs(rng, **sizes)` makes the arrays, `tiny` being the sizes of the tests.

    `tolerance` is of a float32 result against float64, relative to the largest element of an array.
    """

    name: str
    kind: str
    form: Form
    inputs: Callable[..., Inputs]
    sizes: Mapping[str, int]
    tiny: Mapping[str, int]
    work: Callable[..., Work] = lambda **sizes: Work()
    tolerance: float = 2e-4
    compiled: bool = False  # are compilation times measured too?
    timed: bool = True
    without: tuple[str, ...] = ()  # peers that would only repeat what another one shows
    bfloat16: bool = False  # whether peers hold the inputs so
    for_gpus: bool = False  # of a size that is no work for a CPU
    by_host: bool = False  # on a device: whether inputs come from the host's memory and results go back to it
    topic: str = field(default="", compare=False)

    def arrays(self, tiny: bool = False) -> Inputs:
        """The same for every peer."""
        return self.inputs(np.random.default_rng(1234), **(self.tiny if tiny else self.sizes))

    def least(self) -> Work:
        return self.work(**self.sizes)


@dataclass(frozen=True)
class Task:
    """One computation, ready to run.

    `statement` over `names` is what is timed, inside `around`; `results` runs it once from the initial state and gives
    what has to agree.
    """

    statement: str
    names: dict[str, Any]
    results: Callable[[], list[Array]]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


class NotYet(Exception):
    """This peer has no function for the case."""


def listed(results: Any) -> list[Any]:
    """One result or several, as a list."""
    return list(results) if isinstance(results, (tuple, list)) else [results]


def normal(rng: Rng, *shape: int, dtype: str = "float32", scale: float = 1.0) -> Array:
    return (scale * rng.standard_normal(shape)).astype(dtype)
