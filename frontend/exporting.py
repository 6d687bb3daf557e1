"""Functions as a model: their IR under the names that a file has, one table of state behind all of them, and the bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tcc
from tcc.ir import safetensors
from tcc.ir.clone import clone
from tcc.ir.core import Func, Module, Op
from tcc.ir.dims import Size, names_of
from tcc.ir.ops.control import called
from tcc.ir.safetensors import Tensor, tensor
from tcc.ir.text import large_constants, print_module
from tcc.ir.types import COMPILED, COMPLEX, memory_dtype
from tcc.runtime import bundle
from tcc.runtime.buffers import Container
from tcc.runtime.bundle import Member
from tcc.runtime.manifest import Array, Entry, Manifest, Range, is_symbol


@dataclass(frozen=True)
class Model:
    """`module` has a function for each entry, whose parameters are its arguments, then the state that it reads."""

    name: str
    module: Module
    entries: tuple[Entry, ...]
    state: Mapping[str, Tensor]

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """The arrays that the text of the module only names."""
        return {name: tensor(array) for name, array in large_constants(self.module).items()}

    def manifest(self) -> Manifest:
        """Without files and target: those are of what is made of the model."""
        placed = bundle.records({**self.state, **self.constants})
        return Manifest(
            self.name,
            tcc.__version__,
            _llvm_version(),
            self.entries,
            tuple(placed[n] for n in self.state),
            tuple(placed[n] for n in sorted(self.constants)),
        )

    def members(self) -> list[Member]:
        """The text of its IR, and its weights."""
        made = [Member(bundle.TEXT, "tcir", print_module(self.module).encode())]
        tensors = {**self.state, **self.constants}
        if tensors:
            made.append(Member(bundle.WEIGHTS, "weights", b"".join(safetensors.encode(tensors))))
        return made


def save(path: str | os.PathLike[str], what: Any, name: str = "") -> None:
    """Writes a function, or a dict of entry names to functions that may share state, as a bundle for `tcc.load`.

    The bundle holds the IR, the values of the shared variables and a manifest; equal models give equal bytes.  `name` is by
    default the file's.  TypeError or ValueError for a function that needs Python: one of objects, or with a Python op.
    """
    target = Path(path)
    functions = what if isinstance(what, Mapping) else {_symbol(getattr(what, "name", "") or "run"): what}
    model = exported({str(k): f for k, f in functions.items()}, name or _symbol(target.stem))
    bundle.write(target, model.manifest(), model.members())


def exported(functions: Mapping[str, Any], name: str, kernels: bool = False) -> Model:
    """The model of compiled or interpreted functions.  Their containers are its state, each once, whoever shares it.

    With `kernels`, it may hold GPU kernels written in Python, which have code but no text.
    """
    for text in (name, *functions):
        if not is_symbol(text):
            raise ValueError(f"{text!r} cannot name a model or an entry; letters, digits and _ can")
    state: dict[int, tuple[str, Tensor]] = {}
    module: Module = {}
    entries = []
    for entry, function in functions.items():
        func, made = _entry(entry, function, state, kernels)
        module[entry] = func
        entries.append(made)
    return Model(name, module, tuple(entries), dict(state.values()))


def _entry(
    entry: str, function: Any, state: dict[int, tuple[str, Tensor]], kernels: bool
) -> tuple[Func, Entry]:
    inner, keys = getattr(function, "inner", function), getattr(function, "keys", None)
    lowered = getattr(inner, "lowered", None)
    if lowered is None:
        raise TypeError(
            f"{entry}: a model is made of functions of arrays that tcc.function made, not of {type(function).__name__}"
        )
    func = _portable(entry, clone(lowered.bare or lowered.func, _fixed(lowered)), kernels)
    count = len(lowered.inputs)
    taken = {n for n, _ in state.values()}
    reads = {}
    for p, variable in zip(func.body.params[count:], lowered.shared, strict=True):
        container = variable.container
        if id(container) not in state:
            if not isinstance(container, Container):
                raise TypeError(f"{entry}: the shared variable {variable} holds a Python object")
            text = _fresh(variable.name or p.name, taken)
            state[id(container)] = text, tensor(container.get(), p.type.dtype)
        reads[p.name] = state[id(container)][0]
    names = set(reads.values())
    for p, parameter in zip(func.body.params, inner.parameters):
        p.name = _fresh(parameter.name, names)
    for p in func.body.params[count:]:
        p.name = reads[p.name]
    updates = func.attrs.get("updates", {})
    if reads:
        func.attrs["shared"] = [reads[n] for n in lowered.func.attrs["shared"]]
        func.attrs["updates"] = {reads[n]: index for n, index in updates.items()}
    results = func.body.yields[: len(func.body.yields) - len(updates)]
    outputs = keys or [v.name for v in getattr(getattr(inner, "recipe", None), "outputs", ())]
    seen: set[str] = set()
    shown = [
        _fresh((outputs[i] if i < len(outputs) else "") or f"output_{i}", seen) for i in range(len(results))
    ]
    arguments = tuple(Array(p.name, p.type.dtype, _shape(p.type)) for p in func.body.params[:count])
    given = {n for a in arguments for size in a.sizes for n in names_of(size)}
    return func, Entry(
        entry,
        arguments,
        tuple(Array(n, r.type.dtype, _shape(r.type)) for n, r in zip(shown, results)),
        tuple(func.attrs.get("shared", ())),
        tuple(func.attrs.get("updates", ())),
        {n: Range() for n in sorted(given)},
        "dict" if keys else getattr(inner, "returns", None) or inner.program.returns,
    )


def from_module(module: Module, name: str) -> Model:
    """The model of functions in text form.  Their state, parameters named in the attribute `shared`, is zeros.

    TypeError or ValueError where it is of no fixed size, or of two types in two functions.
    """
    state: dict[str, Tensor] = {}
    made: Module = {}
    entries = []
    for entry, given in module.items():
        func = _portable(entry, clone(given))
        reads = func.attrs.get("shared", [])
        updates = func.attrs.get("updates", {})
        arguments = []
        for p in func.body.params:
            if p.name not in reads:
                arguments.append(Array(p.name, p.type.dtype, _shape(p.type)))
                continue
            if not all(isinstance(s, int) for s in p.type.shape):
                raise ValueError(
                    f"{entry}: the state {p.name} is {p.type}, and a model's state has fixed sizes"
                )
            zeros = tensor(np.zeros(p.type.shape, memory_dtype(p.type.dtype)), p.type.dtype)
            known = state.setdefault(p.name, zeros)
            if (known.dtype, known.array.shape) != (zeros.dtype, zeros.array.shape):
                raise ValueError(
                    f"{entry}: the state {p.name} is {p.type} here, and another type in another entry"
                )
        results = func.body.yields[: len(func.body.yields) - len(updates)]
        given_names = {n for a in arguments for size in a.sizes for n in names_of(size)}
        entries.append(
            Entry(
                entry,
                tuple(arguments),
                tuple(Array(f"output_{i}", r.type.dtype, _shape(r.type)) for i, r in enumerate(results)),
                tuple(reads),
                tuple(updates),
                {n: Range() for n in sorted(given_names)},
            )
        )
        made[entry] = func
    return Model(name, made, tuple(entries), state)


def _fixed(lowered: Any) -> dict[str, Size]:
    """The sizes that the state has now, where no update changes them."""
    func, updates = lowered.func, lowered.func.attrs.get("updates", {})
    made: dict[str, Size] = {}
    for p, variable in zip(func.body.params[len(lowered.inputs) :], lowered.shared, strict=True):
        kept = p.name not in updates or func.body.yields[updates[p.name]].type == p.type
        if kept and isinstance(variable.container, Container):
            sizes = zip(p.type.shape, variable.container.shape)
            made |= {s.plain: n for s, n in sizes if not isinstance(s, int) and s.plain}
    return made


def _shape(type: Any) -> tuple[int | str, ...]:
    return tuple(s if isinstance(s, int) else str(s) for s in type.shape)


def is_kernel(op: Op) -> bool:
    """Whether it is a GPU kernel of the user's (tcc.kernels)."""
    return called(op.attrs.get("function")).kernels is not None


def _portable(entry: str, func: Func, kernels: bool = False) -> Func:
    """`func` without what it says of the folders where it was made.  TypeError names all that only this process can run."""
    func.name = entry
    odd = {}
    for op in func.body.walk():
        op.loc = _base(op.loc)
        if op.name == "call" and not (kernels and is_kernel(op)):
            kind = "GPU kernel (which a library may hold)" if is_kernel(op) else "Python op"
            odd[f"the {kind} {str(op.attrs['name']).removesuffix('.sizes')}"] = op.loc
        for v in (*op.operands, *op.results):
            if v.type.dtype not in COMPILED | COMPLEX:
                odd[f"{op.name} of {v.type.dtype}"] = op.loc
    if odd:
        listed = "\n".join(f"  {what}{f', written at {loc}' if loc else ''}" for what, loc in odd.items())
        raise TypeError(f"{entry}: a model cannot hold what needs this Python program:\n{listed}")
    if "why" in func.attrs:
        func.attrs["why"] = {k: _base(text) for k, text in func.attrs["why"].items()}
    return func


def _base(text: str) -> str:
    """Without the folders of file names."""
    return re.sub(r"[^\s\"'(]*/([^/\s]+:\d+)", r"\1", text)


def _symbol(text: str) -> str:
    made = re.sub(r"[^A-Za-z0-9_]", "_", os.path.basename(text))[:100]
    return made if is_symbol(made) else f"m{made}"


def _fresh(text: str, taken: set[str]) -> str:
    """A symbol like `text` that is not taken yet, and now is."""
    base = made = _symbol(text)
    number = 0
    while made in taken:
        number += 1
        made = f"{base}_{number}"
    taken.add(made)
    return made


def _llvm_version() -> str:
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return ""
    return ".".join(map(str, llvm.llvm_version_info))
