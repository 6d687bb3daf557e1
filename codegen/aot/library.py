"""A model's library: one module with the bodies of its entries, what checks their arguments, its context, and C's names for all.

Everything but the functions of the C interface is internal, and what nothing calls is left out.  Control code goes through
LLVM's passes for small code; kernels are as in a running program, instruction for instruction, so results are too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tcc.codegen import jit
from tcc.codegen.aot import freestanding
from tcc.codegen.aot.body import body_text
from tcc.codegen.aot.checks import checks_text
from tcc.codegen.aot.context import context_text
from tcc.codegen.aot.entry import EntryText, Piece
from tcc.codegen.aot.features import oldest, portable, required
from tcc.codegen.aot.messages import c_bytes, string
from tcc.codegen.aot.specs import Strings, sizes_text, spec_rows
from tcc.codegen.aot.state import State
from tcc.codegen.driver import kernels_text
from tcc.codegen.emit import merge, reachable
from tcc.codegen.gpu.library_layout import DeviceLibrary
from tcc.codegen.gpu.library_runtime import runtime_text
from tcc.codegen.products import engines
from tcc.codegen.products.record import Reach
from tcc.codegen.target import Target
from tcc.runtime.manifest import ABI, Array

LIBC = """
declare ptr @aligned_alloc(i64, i64) nonlazybind
declare void @free(ptr) nonlazybind
declare ptr @llvm.threadlocal.address.p0(ptr)
declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


@dataclass(frozen=True)
class Library:
    """All that a library is made of."""

    name: str
    version: str  # of tcc
    pieces: tuple[Piece, ...]
    state: State
    target: Target
    threads: int
    checks: bool = True  # whether arguments are checked
    device: DeviceLibrary | None = None  # what its entries have on a GPU


def exports(library: Library) -> list[str]:
    """The functions of the C interface."""
    own = ["info", "create", "destroy", "state_size", "state_load", "state_save", "state_get", "last_error"]
    each = ("infer_shapes", "workspace_size", "run")
    return [f"{library.name}_{n}" for n in own] + [
        f"{library.name}_{p.entry.name}_{n}" for p in library.pieces for n in each
    ]


def library_text(library: Library) -> str:
    """The module, but for the target."""
    strings = Strings()
    name, state = library.name, library.state
    sizes = {t.name: t.bytes for t in state.tensors}
    entries = [
        EntryText(name, p, strings, state.context_bytes, state.slots, sizes).text() for p in library.pieces
    ]
    arrays = [Array(t.name, t.dtype, t.shape) for t in state.tensors]
    who = strings(name)
    control = "\n".join(
        [
            checks_text(library.checks, library.device is not None),
            body_text(),
            *entries,
            _info_text(library, arrays, strings),
            context_text(
                name,
                who,
                state,
                "@tcc_specs_state_all",
                strings(",".join(required(library.target))),
                library.target,
                library.threads,
                library.device is not None,
            ),
            sizes_text(
                [(a, p.entry.sizes) for p in library.pieces for a in (*p.entry.arguments, *p.entry.results)]
                + [(a, {}) for a in arrays]
            ),
            "".join(
                string(f"tcc_the_{n.replace(' ', '_')}", n if n != "context" else "the context")
                for n in ("context", "buffer", "name", "tensor", "workspace")
            ),
            _last_error(name),
            strings.text(),
        ]
    )
    kernels = {name: k for p in library.pieces for name, k in p.lowered.kernels.items()}
    bodies = [kernels_text(kernels.values()), *(p.lowered.control_text() for p in library.pieces)]
    bodies += _engines(library)
    constants = [
        f"@tcc_const_{p.entry.name}_{i} = internal constant [{max(1, c.nbytes)} x i8] {_data(c)}, align 64\n"
        for p in library.pieces
        for i, c in enumerate(p.lowered.constants)
    ]
    quick = " noinline optnone"
    control = control.replace("#0", "#1")
    bodies.append(freestanding.text(library.target))
    if library.device is not None:
        bodies.append(runtime_text(library.device))
    whole = merge([LIBC, *(b.replace(quick, " optsize") for b in bodies), control]) + "".join(constants)
    roots = [*exports(library), *freestanding.roots(library.target)]
    return reachable(_internal(whole, roots), roots)


def _engines(library: Library) -> list[str]:
    """The engines with just what the plans of this model's products come to."""
    used: dict[str, Reach] = {}
    for piece in library.pieces:
        for kernel in piece.lowered.kernels.values():
            for dtype in kernel.engines.values():
                assert kernel.reach is not None
                needs = replace(kernel.reach(), threads=library.threads > 1)
                used[dtype] = used.get(dtype, needs) | needs
    return [engines.text(dtype, library.target, needs) for dtype, needs in sorted(used.items())]


def library_object(library: Library) -> bytes:
    """The relocatable object."""
    return jit.compile_object(with_base(library_text(library), library.target), portable(library.target))


def library_assembly(library: Library) -> str:
    return jit.assembly(with_base(library_text(library), library.target), portable(library.target))


def with_base(text: str, target: Target) -> str:
    """With the attributes of code that every CPU of its kind runs; calls go by addresses in a table, without stubs."""
    flags = '!llvm.module.flags = !{!0}\n!0 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
    return f"{text}\nattributes #1 = {{ nounwind minsize optsize {oldest(target)} }}\n{flags}"


def _data(array: np.ndarray[Any, Any]) -> str:
    return c_bytes(np.ascontiguousarray(array).tobytes() or b"\0")


def _info_text(library: Library, state: Sequence[Array], strings: Strings) -> str:
    """The structs behind `info()`, laid out as the header says."""
    rows = ", ".join(
        f"%tcc_entry {{ ptr {strings(p.entry.name)}, i32 {len(p.entry.arguments)}, i32 {len(p.entry.results)}, "
        f"ptr @tcc_specs_{p.entry.name} }}"
        for p in library.pieces
    )
    gpu = [] if library.device is None else [library.device.chip.name]
    features = ",".join([*required(library.target), *gpu])
    fields = ", ".join(
        [
            f"i32 {ABI}",
            f"i32 {len(library.pieces)}",
            f"ptr {strings(library.name)}",
            f"ptr {strings(library.version)}",
            f"ptr {strings(library.target.triple)}",
            f"ptr {strings(features)}",
            "ptr @tcc_entries",
            "ptr @tcc_specs_state_all",
            f"i32 {len(state)}",
            f"i32 {library.threads}",
        ]
    )
    table = (
        f"[{len(state)} x %tcc_spec] [{spec_rows(state, {}, strings)}]"
        if state
        else "[1 x %tcc_spec] zeroinitializer"
    )
    return f"""
%tcc_entry = type {{ ptr, i32, i32, ptr }}
%tcc_info = type {{ i32, i32, ptr, ptr, ptr, ptr, ptr, ptr, i32, i32 }}
@tcc_entries = internal constant [{len(library.pieces)} x %tcc_entry] [{rows}]
@tcc_specs_state_all = internal constant {table}
@tcc_model = internal constant %tcc_info {{ {fields} }}

define ptr @{library.name}_info() #1 {{
  ret ptr @tcc_model
}}
"""


def _last_error(name: str) -> str:
    return f"""
define ptr @{name}_last_error() #1 {{
  %message = call ptr @llvm.threadlocal.address.p0(ptr @tcc_error)
  ret ptr %message
}}
"""


# -- what is left out --------------------------------------------------------------------------------------------

_HEAD = re.compile(r"^define (?!internal)(.*?@([\w.]+)\()", re.M)


def _internal(text: str, exported: Sequence[str]) -> str:
    kept = frozenset(exported)
    return _HEAD.sub(lambda m: m[0] if m[2] in kept else f"define internal {m[1]}", text)
