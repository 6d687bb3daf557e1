"""`tcc inspect` and `tcc targets`: what files hold, and what this machine can make."""

from __future__ import annotations

from collections.abc import Mapping

from tcc.ir.safetensors import Tensor
from tcc.loading import described, module_of
from tcc.runtime.bundle import Bundle
from tcc.runtime.manifest import Entry, Manifest, Range
from tcc.tools.describe import columns


def bundle_text(file: Bundle) -> str:
    """All of it read and checked; BundleError if something is wrong."""
    m = file.manifest
    if m.file("tcir"):
        module_of(file)
    rows = [
        ("model", m.name),
        (
            "format",
            f"{m.format}, ABI {m.abi}; written by tcc {m.tcc}{f' with LLVM {m.llvm}' if m.llvm else ''}",
        ),
        ("sha256", file.sha256),
        *([("target", target(m))] if m.target else []),
        *(("entry", entry(e)) for e in m.entries),
    ]
    parts = [columns(rows)]
    if m.state:
        state = [(f"  {t.name}", f"{t.dtype}{list(t.shape)}", f"{t.bytes:,} bytes") for t in m.state]
        parts.append(f"state\n{columns(state)}")
    if m.constants:
        parts.append(f"{len(m.constants)} constants, {sum(t.bytes for t in m.constants):,} bytes")
    members = [(f"  {f.name}", f.role, f"{f.bytes:,} bytes", f.sha256[:16]) for f in m.files]
    parts.append(f"files\n{columns(members)}")
    return "\n".join(parts)


def entry(e: Entry) -> str:
    limits = [f"{n} = {span(r)}" for n, r in e.sizes.items() if r != Range()]
    notes = [", ".join(limits)] if limits else []
    notes += [f"updates {', '.join(e.updates)}"] if e.updates else []
    return described(e) + (f"; {'; '.join(notes)}" if notes else "")


def span(r: Range) -> str:
    return f"{r.least}..{'' if r.most is None else r.most}"


def target(m: Manifest) -> str:
    assert m.target is not None
    count = m.target.threads
    return f"{m.target.triple}, {m.target.cpu}, {count} thread{'s' * (count > 1)}" + (
        f", {m.target.gpu}" if m.target.gpu else ""
    )


def weights_text(tensors: Mapping[str, Tensor]) -> str:
    if not tensors:
        return "no tensors"
    return columns(
        (n, f"{t.dtype}{list(t.array.shape)}", f"{t.array.nbytes:,} bytes") for n, t in tensors.items()
    )


def targets_text() -> str:
    from tcc.codegen.gpu.chips import CHIPS, TRIPLE
    from tcc.codegen.target import KNOWN
    from tcc.tools.toolchain import found

    rows = [("triple", "cpu", "features", "vectors")]
    for k in KNOWN:
        vectors = f"{k.vector_bits} bits{'' if k.fma else ', no fused multiply-add'}"
        rows.append((k.triple, k.cpu, k.features or "those of the cpu", vectors))
    rows += [(TRIPLE, name, features, "one lane a thread") for name, features in CHIPS.items()]
    tools = [(f"  {name}", said) for name, said in found()]
    return f"{columns(rows)}\n\nfound here\n{columns(tools)}"
