"""Puts passes, code generation and runtime together: from a function's IR to variants of native code.

The first call compiles for the sizes that it brings.  When a size is seen to vary, the next variant leaves it to run
time; so a function is compiled at most once more than it has sizes that vary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tcc.artefact import Artefact, without_places
from tcc.failures import failure_record, refuse_certain_failures
from tcc.ir import dims, knobs
from tcc.ir.clone import clone
from tcc.ir.core import Func, Op, Value
from tcc.ir.dims import Size
from tcc.ir.knobs import STAGES
from tcc.ir.text import print_func
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function, Orders, Specialise, Variant
from tcc.runtime.garbage import uncollected
from tcc.runtime.signature import InputSpec, Returns, SharedSpec, Signature, SizeMismatch

if TYPE_CHECKING:
    from tcc.codegen.target import Target
    from tcc.passes.manager import Context, Step

Array = np.ndarray[Any, Any]
SUFFIXES = {
    "llvm": ".ll",
    "asm": ".s",
    "plan": ".txt",
    "ptx": ".ptx",
}  # of files that hold a stage; the others are .tcir


class Compilation(NamedTuple):
    """One compile: why it was made, for which sizes, how long it took, and whether the cache had it."""

    reason: str
    sizes: Mapping[str, int]  # those put in as numbers
    varying: tuple[str, ...]
    seconds: float
    cached: bool


@dataclass
class Program:
    """A function's IR with its containers; `specialise` is what `tcc.runtime.callable.Function` asks for code.

    `func` is at level 1; `func.attrs["shared"]` names the parameters that are containers, `["updates"]` maps them to results.
    """

    func: Func
    containers: Mapping[str, Container]
    returns: Returns = "list"
    explain_mismatch: Callable[[SizeMismatch], Exception] = lambda e: e
    varying: frozenset[str] = frozenset()
    seen: dict[str, int] = field(default_factory=dict)
    trail: list[dict[str, int]] = field(default_factory=list)  # the sizes of each compilation
    history: list[Compilation] = field(default_factory=list)
    context: Context | None = None  # of the last compile that ran the passes
    timed: list[Op] = field(default_factory=list)  # the ops of a compile with a clock
    orders: Orders = ()  # in which inputs are given, of their axes; none: all as they are

    def specialise(self, function: Function, arrays: Sequence[Array]) -> Variant:
        """Code for these arguments and for what the containers hold.

        What compiling makes lives until its end, so that looking for garbage on the way would only take time.
        """
        with uncollected():
            return self._specialise(arrays)

    def _specialise(self, arrays: Sequence[Array]) -> Variant:
        start = time.perf_counter()
        sizes = self.bind(arrays)
        changed = sorted(n for n, v in sizes.items() if self.seen.get(n, v) != v)
        self.varying |= frozenset(changed)
        self.seen = dict(sizes)
        self.trail.append(self.seen)
        fixed = {n: v for n, v in sizes.items() if n not in self.varying}
        artefact, cached = self.artefact({**fixed, **self.alike()})
        variant = artefact.variant(self.containers, self.func.name)
        reason = f"{', '.join(changed)} changed" if changed else "first call"
        if self.orders:
            lie = zip(self.inputs(), self.orders, strict=True)
            reason += "".join(f", axes of {p.name} in the order {order}" for p, order in lie if order)
        self.history.append(
            Compilation(reason, fixed, tuple(sorted(self.varying)), time.perf_counter() - start, cached)
        )
        return variant

    def alike(self) -> dict[str, Size]:
        """Varying sizes that were equal at every compilation so far go by one name: arrays of one batch, as a rule.

        The entry checks it, so the first call that is otherwise gets code of its own.
        """
        first: dict[tuple[int, ...], str] = {}
        found: dict[str, Size] = {}
        for name in self.seen:
            if name in self.varying:
                leader = first.setdefault(tuple(sizes[name] for sizes in self.trail), name)
                if leader != name:
                    found[name] = dims.name(leader)
        return found

    def bind(self, arrays: Sequence[Array]) -> dict[str, int]:
        """The number behind each size name; a mismatch names the user's line."""
        shared = [p for p in self.func.body.params if p.name in self.containers]
        orders = self.orders or [()] * len(arrays)
        signature = Signature(
            tuple(
                InputSpec(p.type.dtype, as_written(p.type.shape, order), name=p.name)
                for p, order in zip(self.inputs(), orders)
            ),
            tuple(SharedSpec(p.type.dtype, p.type.shape, name=p.name) for p in shared),
        )
        shapes = [as_written(a.shape, order) for a, order in zip(arrays, orders)]
        try:
            return dict(signature.bind(shapes, [self.containers[p.name].shape for p in shared]))
        except SizeMismatch as e:
            raise self.explain_mismatch(e) from None

    def inputs(self) -> list[Value]:
        return [p for p in self.func.body.params if p.name not in self.containers]

    def turn(self, orders: Orders) -> Specialise | None:
        """`specialise` of the program for inputs whose axes are given in these orders; None if loops read one of them."""
        from tcc.passes.turned import turnable, turned

        if not all(turnable(p) for p, order in zip(self.inputs(), orders, strict=True) if order):
            return None
        other = replace(self, func=turned(self.func, orders), orders=orders, seen={}, trail=[])
        return other.specialise

    def artefact(self, fixed: Mapping[str, Size]) -> tuple[Artefact, bool]:
        """The code for a set of known sizes, from the cache or made now."""
        from tcc.codegen.keys import cache_key
        from tcc.codegen.target import chosen
        from tcc.runtime import cache

        target = chosen()
        func = clone(self.func, fixed)
        refuse_certain_failures(func)
        func.attrs["hints"] = {n: v for n, v in self.seen.items() if n not in fixed}
        func.attrs["returns"] = self.returns
        shown = knobs.DUMP.get()
        cacheable = not shown and not any(op.name == "call" for op in func.body.walk())
        text, locs = without_places(func)
        key = cache_key("function", text, target) if cacheable else ""
        if cacheable:
            data = cache.get(key)
            if data is not None:
                return Artefact.unpack(data, locs), True
        for stage in [s for s in STAGES if s in shown or "all" in shown]:
            self.write_dump(stage, fixed)
        artefact = self.make(func, target)
        if cacheable and not artefact.host_calls:
            cache.put(key, artefact.pack(locs))
        return artefact, False

    def write_dump(self, stage: str, fixed: Mapping[str, Size]) -> None:
        folder = knobs.DUMP_DIR.get() / self.func.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stage}{SUFFIXES.get(stage, '.tcir')}").write_text(self.text(stage, fixed))

    def make(self, func: Func, target: Target, clock: int = 0) -> Artefact:
        """The code; with a `clock`, its kernels' times are taken there (codegen/driver.py)."""
        from tcc.codegen.compile import Making
        from tcc.codegen.coverage import require_native
        from tcc.codegen.driver import lower
        from tcc.codegen.products import engines

        require_native(func)
        self.measure_plans(func, self.run_passes(func))
        with Making(target) as making:
            lowered = lower(func, target, self.returns, clock, making.begin)
            self.timed = lowered.timed
            forms = lowered.forms()
            engines.prepare(forms, target)
            compiled = making.finish(lowered)
        failures = {number: failure_record(op) for number, op in lowered.ops.items()}
        return Artefact(
            compiled.code,
            compiled.entry,
            dict(lowered.engines),
            forms,
            lowered.signature,
            lowered.constants,
            failures,
            lowered.claims,
            lowered.host_calls,
        )

    def run_passes(self, func: Func) -> Context:
        from tcc.passes.manager import run
        from tcc.passes.pipeline import context_from_knobs

        self.context = context_from_knobs()
        if self.context.dump is not None:
            self.context.dump /= func.name
        run(func, self.pipeline(), self.context)
        return self.context

    def measure_plans(self, func: Func, context: Context) -> None:
        """Of the products of a placed function, if TCC_TUNE asks for it."""
        if not knobs.TUNE.get():
            return
        from tcc.codegen.products.tuning import tune
        from tcc.codegen.target import chosen

        context.current = "tune"
        tune(func, chosen(), context.remark)
        context.current = ""

    def pipeline(self) -> list[Step]:
        """What its target wants."""
        from tcc.codegen.products.panels import loop_bytes, panel_bytes
        from tcc.codegen.target import chosen
        from tcc.passes.pipeline import cpu_pipeline

        target = chosen()
        return cpu_pipeline(
            bf16_products=target.bf16_products,
            panel_bytes=panel_bytes(target),
            loop_bytes=loop_bytes(target),
            keep=knobs.KEEP.get(),
        )

    def text(self, stage: str, sizes: Mapping[str, Size] | None = None) -> str:
        """The function at one of STAGES, for the sizes given (all others stay names)."""
        from tcc.passes.manager import run
        from tcc.passes.pipeline import context_from_knobs

        if stage not in STAGES:
            raise ValueError(f"no stage {stage!r} (there are {', '.join(STAGES)})")
        func = clone(self.func, sizes or {})
        if stage == "values":
            return print_func(func) + "\n"
        steps = self.pipeline()
        if "outputs" in func.attrs:  # a text that is placed already: what follows is left to do
            done = "plan" if "arena" in func.attrs else "place"
            steps = steps[[s.name for s in steps].index(done) + 1 :]
        if stage == "fused":
            steps = [s for s in steps if s.name not in ("place", "plan")]
        elif stage == "placed":
            steps = [s for s in steps if s.name != "plan"]
        context = context_from_knobs()
        context.dump = None
        run(func, steps, context)
        if stage != "fused":
            self.measure_plans(func, context)
        if stage in ("fused", "placed"):
            return print_func(func) + "\n"
        if stage == "plan":
            from tcc.passes.plan import report

            return report(func)
        from tcc.codegen import compile as compiler
        from tcc.codegen import jit
        from tcc.codegen.driver import lower
        from tcc.codegen.target import chosen

        target = chosen()
        text = compiler.full_text(lower(func, target, self.returns), target)
        return text if stage == "llvm" else jit.assembly(text, target)


def as_written(sizes: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    """Sizes of axes that are given in an order, in the order of the axes."""
    return tuple(sizes[order.index(axis)] for axis in range(len(order))) if order else tuple(sizes)
