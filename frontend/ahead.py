"""Models ahead of time: the passes and the code generator put together for libraries that need nothing of this program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import tcc
from tcc.exporting import Model, is_kernel
from tcc.failures import failure_record
from tcc.ir import dims, safetensors
from tcc.ir.clone import clone
from tcc.ir.core import Func, Op
from tcc.ir.dims import Size, names_of, substitute
from tcc.ir.types import itemsize
from tcc.passes.expand import needs_python
from tcc.passes.manager import Context, run
from tcc.passes.parts import parts
from tcc.passes.writes import on_host
from tcc.runtime import bundle
from tcc.runtime.manifest import Array, Entry, Range, Tensor

if TYPE_CHECKING:
    from tcc.codegen.aot.entry import Piece
    from tcc.codegen.aot.library import Library
    from tcc.codegen.aot.state import Panels, State
    from tcc.codegen.gpu.library_layout import DeviceLibrary
    from tcc.codegen.target import Target


def library(
    model: Model, target: Target, threads: int = 1, embed: bool = True, checks: bool = True, gpu: str = ""
) -> Library:
    """The code of a model; `embed` puts the state's values into it, and without `checks` it trusts its callers.

    With a `gpu`, an architecture such as sm_80, entries launch kernels there.  TypeError names all ops that only Python can run,
    and state whose size an entry changes.
    """
    from tcc.codegen.aot.features import shipped
    from tcc.codegen.aot.freestanding import is_freestanding
    from tcc.codegen.aot.library import Library
    from tcc.codegen.aot.state import State

    target = shipped(target)
    refuse_python(model, bool(gpu))
    if gpu and is_freestanding(target):
        raise TypeError(f"code for {target.triple} has no way to a GPU")
    if threads > 1 and is_freestanding(target):
        raise TypeError(f"code for {target.triple} runs on one thread, not on {threads}")
    placed = bundle.records(model.state)
    header = safetensors.encode(model.state)[0] if model.state else b""
    written = frozenset(n for e in model.entries for n in e.updates)
    order = sorted(placed, key=lambda n: placed[n].offset)
    values = {n: t.array for n, t in model.state.items()} if embed else None
    state = State(tuple(placed[n] for n in order), header, values, written)
    if gpu:
        device = _on_device(model, state, gpu)
        pieces = tuple(_device_piece(e, device) for e in model.entries)
        return Library(model.name, tcc.__version__, pieces, state, target, 1, checks, device)
    funcs = [_placed(model.module[e.name], frozenset(e.reads) - written, target) for e in model.entries]
    pieces = tuple(_piece(f, e, target) for f, e in zip(funcs, model.entries))
    direct = frozenset(p.name for f in funcs for p in f.body.params if p.uses)
    state = replace(state, panels=_panels(funcs, placed, target), direct=direct)
    return Library(model.name, tcc.__version__, pieces, state, target, threads, checks)


def refuse_python(model: Model, gpu: bool = False) -> None:
    """TypeError for ops that have no native code, all of them at once, and for state of changing size."""
    odd: dict[str, str] = {}
    for name, func in model.module.items():
        lowered = clone(func)
        parts(lowered, Context())
        for op in lowered.body.walk():
            if (on_host if gpu else needs_python)(op) and not (gpu and is_kernel(op)):
                takes = ", ".join(str(v.type) for v in op.operands)
                odd[f"{op.name}({takes}) in {name}"] = op.loc
        updates = func.attrs.get("updates", {})
        for p in func.body.params:
            if p.name in updates and func.body.yields[updates[p.name]].type != p.type:
                odd[f"the update of {p.name} in {name}, which changes its size"] = ""
    if odd:
        listed = "\n".join(f"  {what}{f', written at {loc}' if loc else ''}" for what, loc in odd.items())
        raise TypeError(f"{model.name}: there is no native code without Python for:\n{listed}")


def _on_device(model: Model, state: State, gpu: str) -> DeviceLibrary:
    """The entries' programs for a GPU; TypeError for what is on the host only now, as products of halves may be."""
    from tcc.codegen.gpu.chips import chip
    from tcc.codegen.gpu.driver import lower
    from tcc.codegen.gpu.library_layout import DeviceLibrary
    from tcc.passes.pipeline import context_from_knobs, gpu_pipeline
    from tcc.runtime.device_program import DeviceCall, HostStep

    programs = {}
    for e in model.entries:
        func = clone(model.module[e.name])
        run(func, gpu_pipeline(), context_from_knobs())
        programs[e.name] = lower(func, chip(gpu), tile_maps=True)
        odd = [s.call.name for s in programs[e.name].walk() if isinstance(s, HostStep | DeviceCall)]
        if odd:
            raise TypeError(f"{model.name}: there is no code for a GPU for {', '.join(odd)} in {e.name}")
    return DeviceLibrary(programs, {t.name: t.bytes for t in state.tensors}, chip(gpu))


def _device_piece(entry: Entry, device: DeviceLibrary) -> Piece:
    from tcc.codegen.aot.entry import Piece
    from tcc.codegen.gpu.library import DeviceLowered

    lowered = DeviceLowered(entry.name, device)
    return Piece(entry, lowered, {number: message(op) for number, op in lowered.failing})


def _placed(func: Func, frozen: Set[str], target: Target) -> Func:
    """A function after the passes; panels of `frozen` parameters are parameters of their own."""
    from tcc.codegen.coverage import require_native
    from tcc.codegen.products.panels import loop_bytes, panel_bytes
    from tcc.passes.panels import FROZEN
    from tcc.passes.pipeline import context_from_knobs, cpu_pipeline

    func = clone(func)
    require_native(func)
    func.attrs[FROZEN] = sorted(frozen)
    steps = cpu_pipeline(
        bf16_products=target.bf16_products,
        panel_bytes=panel_bytes(target),
        loop_bytes=loop_bytes(target),
        python=False,
    )
    run(func, steps, context_from_knobs())
    return func


def _panels(funcs: Sequence[Func], state: Mapping[str, Tensor], target: Target) -> tuple[Panels, ...]:
    """What panels of the state the functions read, each once."""
    from tcc.codegen.aot.state import Panels
    from tcc.codegen.products.panels import panel_bytes
    from tcc.passes.panels import layouts

    found = {made.name: made for func in funcs for made in layouts(func)}
    return tuple(
        Panels(made, dtype, panel_bytes(target) // itemsize(dtype))
        for made in found.values()
        for dtype in (state[made.source].dtype,)
    )


def _piece(func: Func, entry: Entry, target: Target) -> Piece:
    from tcc.codegen.aot.entry import Piece
    from tcc.codegen.driver import lower

    lowered = lower(func, target)
    return Piece(entry, lowered, {number: message(op) for number, op in lowered.ops.items()})


def message(op: Op) -> str:
    """What an op's failure says, as a format of the four numbers that it brings."""
    record = {k: v.replace("%", "%%") for k, v in failure_record(op).items()}
    where = f", written at {record['loc']}" if record["loc"] else ""
    if record["op"] == "check_index":
        return f"index %d is out of bounds for an axis of size %d (index number %d){where}"
    if record["op"] == "check_size":
        return f"{record['message']} (%d, which is {record['left']}, against %d, which is {record['right']}){where}"
    if record["op"] == "check_sparse":
        return f"{record['message']}{where}"
    if record["op"] == "check_pivots":
        return f"{record['message']} (pivot %d of {record['of']}){where}"
    if record["op"] == "bind":
        return f"a size must not be negative, got %d{where}"
    return f"{record['op']} failed with %d, %d{where}"


# -- sizes -------------------------------------------------------------------------------------------------------


class ShapeError(ValueError):
    """Sizes that an argument cannot have."""


def with_shapes(
    model: Model,
    shapes: Mapping[str, tuple[int | str | Range, ...]],
    named: Mapping[str, Range] | None = None,
) -> Model:
    """The model whose arguments have the sizes given: numbers, names, which must then be equal, or ranges.

    Each argument of that name is meant, of whatever entry; `named` has ranges of names.  ShapeError for what no argument has,
    and what contradicts itself.
    """
    seen = {a.name: a for e in model.entries for a in e.arguments}
    for name, shape in shapes.items():
        if name not in seen:
            raise ShapeError(f"no argument {name} (there are {', '.join(seen) or 'none'})")
        if len(shape) != seen[name].rank:
            raise ShapeError(f"{name} has {seen[name].rank} axes, and {len(shape)} sizes are given for it")
    module, entries = {}, []
    for entry in model.entries:
        known: dict[str, Size] = {}
        ranges: dict[str, Range] = {}
        for a in entry.arguments:
            for axis, (size, wanted) in enumerate(zip(a.sizes, shapes.get(a.name, ()))):
                where = f"{a.name}, axis {axis}"
                if isinstance(size, int) or size.plain is None:
                    if wanted not in (size, str(size)):
                        raise ShapeError(f"{where}: its size is {size}, not {_said(wanted)}")
                    continue
                if isinstance(wanted, Range):
                    if ranges.setdefault(size.plain, wanted) != wanted:
                        raise ShapeError(
                            f"{where}: {size} has two ranges, {_said(ranges[size.plain])} and {_said(wanted)}"
                        )
                    continue
                new = wanted if isinstance(wanted, int) else dims.name(wanted)
                if known.setdefault(size.plain, new) != new:
                    raise ShapeError(
                        f"{where}: it has the size of another axis, {known[size.plain]}, and not {new}"
                    )
        for name, range in ranges.items():
            if isinstance(known.get(name), int):
                raise ShapeError(f"the size {name} is {known[name]}, and has a range, {_said(range)}")
        for name, range in (named or {}).items():
            ranges |= {old: range for old, new in known.items() if str(new) == name} or {name: range}
        module[entry.name] = clone(model.module[entry.name], known)
        module[entry.name].attrs.pop("why", None)
        entries.append(_renamed(entry, known, ranges))
    return replace(model, module=module, entries=tuple(entries))


def _said(size: int | str | Range) -> str:
    if isinstance(size, Range):
        return f"{size.least}..{'' if size.most is None else size.most}"
    return str(size)


def _renamed(entry: Entry, known: Mapping[str, Size], ranges: Mapping[str, Range]) -> Entry:
    def moved(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        shapes = [[substitute(s, known) for s in a.sizes] for a in arrays]
        return tuple(
            Array(a.name, a.dtype, tuple(s if isinstance(s, int) else str(s) for s in shape))
            for a, shape in zip(arrays, shapes)
        )

    arguments, results = moved(entry.arguments), moved(entry.results)
    names = {n for a in (*arguments, *results) for s in a.sizes for n in names_of(s)}
    given = {str(known.get(n, n)): r for n, r in {**entry.sizes, **ranges}.items()}
    return replace(
        entry,
        arguments=arguments,
        results=results,
        sizes={n: given.get(n, Range()) for n in sorted(names & given.keys())},
    )
