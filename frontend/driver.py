"""Puts passes, code generation and runtime together: from a function's IR to variants of native code.

The first call compiles for the sizes that it brings.  When a size is seen to vary, the next variant leaves it to run
time; so a function is compiled at most once more than it has sizes that vary.
"""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tcc.ir import dims, knobs
from tcc.ir.builder import Builder
from tcc.ir.clone import clone
from tcc.ir.core import Block, Func, Op, Value
from tcc.ir.dims import Size, parse_size, size_error
from tcc.ir.knobs import STAGES
from tcc.ir.text import print_func
from tcc.ir.types import FROM_NUMPY, Type, itemsize, memory_dtype, parse_type
from tcc.runtime.arenas import Claim
from tcc.runtime.buffers import Container, aligned
from tcc.runtime.callable import Failure, Function, Orders, Specialise, Variant
from tcc.runtime.garbage import uncollected
from tcc.runtime.host import HostCall
from tcc.runtime.panels import KeptSpec, Layout, kept
from tcc.runtime.signature import InputSpec, OutputSpec, Returns, SharedSpec, Signature, SizeMismatch

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
        from tcc.codegen import compile as compiler
        from tcc.codegen.coverage import require_native
        from tcc.codegen.driver import lower
        from tcc.codegen.products import engines

        require_native(func)
        self.measure_plans(func, self.run_passes(func))
        lowered = lower(func, target, self.returns, clock)
        self.timed = lowered.timed
        forms = lowered.forms()
        engines.prepare(forms, target)
        compiled = compiler.compile_lowered(lowered, target)
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


@dataclass
class Artefact:
    """Everything that running a compiled function takes; `pack` and `unpack` carry it through the cache."""

    code: Sequence[bytes]
    entry: str
    engines: dict[str, str]
    forms: dict[str, frozenset[int]]  # of products, by dtype
    signature: Signature
    constants: list[Array]
    failures: dict[int, dict[str, str]]
    claims: list[Claim]
    host_calls: Sequence[HostCall] = ()

    def variant(self, containers: Mapping[str, Container], name: str) -> Variant:
        """The code in memory, bound to its containers."""
        from tcc.codegen.image import Compiled, load
        from tcc.codegen.target import chosen

        image, entry = load(Compiled(self.code, self.entry, self.engines, self.forms), chosen())
        own = [
            containers[s.name]
            for s in self.signature.shared[: len(self.signature.shared) - len(self.constants)]
        ]
        return Variant(
            self.signature,
            entry,
            image,
            containers=[*own, *(Container(c, borrow=True) for c in self.constants)],
            panels=[kept(own[spec.source], spec.layout, spec.width) for spec in self.signature.kept],
            failures={number: failure(record) for number, record in self.failures.items()},
            host_calls=self.host_calls,
            claims=self.claims,
        )

    def pack(self, locs: Sequence[str]) -> bytes:
        """As bytes, with the user's places in `locs` by their numbers."""
        s = self.signature
        head = {
            "entry": self.entry,
            "engines": self.engines,
            "forms": {dtype: sorted(forms) for dtype, forms in self.forms.items()},
            "inputs": [[i.dtype, list(map(str, i.shape)), i.name] for i in s.inputs],
            "shared": [[i.dtype, list(map(str, i.shape)), i.written, i.name, i.constant] for i in s.shared],
            "outputs": [[o.dtype, list(map(str, o.shape)), o.late, o.adopt] for o in s.outputs],
            "returns": s.returns,
            "sizes": [str(s.arena), str(s.scratch), str(s.work)],
            "late": s.late,
            "kept": s.kept,
            "claims": [[c.purpose, None if c.bytes is None else str(c.bytes)] for c in self.claims],
            "constants": [f"{_dtype_name(c)}[{','.join(map(str, c.shape))}]" for c in self.constants],
            "failures": self.failures,
            "code": list(map(len, self.code)),
        }
        text = places_for_numbers(json.dumps(head), locs).encode()
        return (
            struct.pack("<q", len(text))
            + text
            + b"".join([*self.code, *(c.tobytes() for c in self.constants)])
        )

    @classmethod
    def unpack(cls, data: bytes, locs: Sequence[str]) -> Artefact:
        """What `pack` made of equal IR, which may stand at other places of the user's program."""
        (length,) = struct.unpack_from("<q", data)
        text = data[8 : 8 + length].decode()
        head = json.loads(places_from_numbers(text, locs))
        at = 8 + length
        code: list[bytes] = []
        for size in head["code"]:
            code.append(data[at : at + size])
            at += size
        constants: list[Array] = []
        for text in head["constants"]:
            t = parse_type(text)
            shape = [int(str(n)) for n in t.shape]
            count = int(np.prod(shape, dtype=np.int64))
            constants.append(aligned(np.frombuffer(data, memory_dtype(t.dtype), count, at).reshape(shape)))
            at += count * itemsize(t.dtype)
        arena, scratch, work = (parse_size(t) for t in head["sizes"])
        signature = Signature(
            tuple(InputSpec(d, _shape(s), name=n) for d, s, n in head["inputs"]),
            tuple(SharedSpec(d, _shape(s), *more) for d, s, *more in head["shared"]),
            tuple(OutputSpec(d, _shape(s), late, adopt) for d, s, late, adopt in head["outputs"]),
            head["returns"],
            arena,
            scratch,
            work,
            head["late"],
            tuple(KeptSpec(source, Layout(*layout), width) for source, layout, width in head["kept"]),
        )
        failures = {int(k): v for k, v in head["failures"].items()}
        claims = [Claim(p, None if b is None else parse_size(b)) for p, b in head["claims"]]
        forms = {dtype: frozenset(found) for dtype, found in head["forms"].items()}
        return cls(code, head["entry"], head["engines"], forms, signature, constants, failures, claims)


_PLACE = re.compile(r"<place (\d+)>")
_LOC = re.compile(r' loc ("(?:[^"\\]|\\.)*")')


def without_places(func: Func) -> tuple[str, list[str]]:
    """The text of a function as the cache's key wants it, without names and lines of the user's program, and these lines.

    A guess at sizes, and the reasons why sizes are equal, are left out too: they change no result.
    """
    attrs = {k: v for k, v in func.attrs.items() if k not in ("why", "hints")}
    locs: dict[str, int] = {}
    bare = Func("f", func.body, attrs)
    text = _LOC.sub(lambda m: f" loc {locs.setdefault(json.loads(m[1]), len(locs))}", print_func(bare))
    func.body.parent = func
    return text, list(locs)


def places_for_numbers(text: str, locs: Sequence[str]) -> str:
    """JSON in which places of the user's program are their numbers in `locs`."""
    for loc in sorted(filter(None, locs), key=len, reverse=True):
        text = text.replace(json.dumps(loc)[1:-1], f"<place {locs.index(loc)}>")
    return text


def places_from_numbers(text: str, locs: Sequence[str]) -> str:
    return _PLACE.sub(lambda m: json.dumps(locs[int(m[1])])[1:-1], text)


def _dtype_name(array: Array) -> str:
    return FROM_NUMPY[array.dtype.name]


def _shape(texts: Sequence[str]) -> tuple[Size, ...]:
    return tuple(parse_size(t) for t in texts)


def refuse_certain_failures(func: Func) -> None:
    """Raises what a check would raise that fails for these very sizes: behind it the types contradict each other.

    A branch in which a check fails so is cut off there, for it may never be taken.
    """
    _refuse(func.body)


def _refuse(block: Block) -> None:
    for op in block.ops:
        if op.name == "ifelse":
            for branch in op.blocks:
                _cut(branch, [r.type for r in op.results])
            continue
        for inner in op.blocks:
            _refuse(inner)
        error = certain_failure(op)
        if error is not None:
            raise error


def _cut(branch: Block, types: Sequence[Type]) -> None:
    """Behind a check that is certain to fail in it a branch yields anything of its types."""
    ops = list(branch.ops)
    first = next((k for k, op in enumerate(ops) if certain_failure(op) is not None), None)
    if first is None:
        _refuse(branch)
        return
    for op in reversed(ops[first + 1 :]):
        op.erase()
    b = Builder(branch)
    b.op("yield", *(b.const(0, t) for t in types))


def certain_failure(op: Op) -> Exception | None:
    """What a check raises that fails for these very sizes."""
    if op.name == "check_size":
        left, right = op.attrs["left"], op.attrs["right"]
        if isinstance(left, int) and isinstance(right, int) and left != right:
            return failure(failure_record(op))(left, right, 0, 0)
    elif op.name == "check_index":
        made, bound = op.operands[0].op, op.attrs["bound"]
        at = made.attrs["value"] if made is not None and made.name in ("size", "const") else None
        if isinstance(at, int) and isinstance(bound, int) and not -bound <= at < bound:
            return failure(failure_record(op))(at, bound, 0, 0)
    return None


def failure_record(op: Any) -> dict[str, str]:
    """What a message about an op that can fail needs."""
    record = {"op": op.name, "loc": op.loc}
    if op.name == "check_size":
        record |= {k: str(op.attrs[k]) for k in ("left", "right", "message")}
    if op.name == "check_pivots":
        record |= {k: str(op.attrs[k]) for k in ("message", "of")}
        record["batch"] = " of matrix number" if op.operands[0].type.rank else ""
    if op.name == "bind":
        record["size"] = str(op.attrs["size"])
    if op.name == "check_index":
        record["bound"] = str(op.attrs["bound"])
        record["of"] = f" of {op.operands[0].name}" if op.operands[0].op is None else ""
    return record


def _side(size: str, number: int) -> str:
    return size if size == str(number) else f"{size} = {number}"


def failure(record: Mapping[str, str]) -> Failure:
    """The exception for an op's failure, made from the integers of the error record."""
    where = f"\nwritten at {record['loc']}" if record["loc"] else ""

    def make(a: int, b: int, c: int, d: int) -> Exception:
        if record["op"] == "check_index":
            which = f"index number {c}{record['of']}"
            return IndexError(f"index {a} is out of bounds for an axis of size {b} ({which}){where}")
        if record["op"] == "check_size":
            sides = " against ".join(_side(record[k], n) for k, n in (("left", a), ("right", b)))
            return size_error(f"{record['message']} ({sides}){where}")
        if record["op"] == "check_pivots":
            which = f"pivot {a}" + (f"{record['batch']} {c}" if record["batch"] else "")
            return np.linalg.LinAlgError(f"{record['message']} ({which})\nin {record['of']}{where}")
        if record["op"] == "bind":
            return ValueError(f"a size must not be negative, got {a}{where}")
        return RuntimeError(f"{record['op']} failed with {(a, b, c, d)}{where}")

    return make
