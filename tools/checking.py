"""`tcc compile --verify`: the library itself, through its C interface, against the interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tcc
from tcc.codegen.target import host
from tcc.exporting import is_kernel
from tcc.runtime.library import ModelError
from tcc.tools import building, verifying
from tcc.tools.cfiles import example_sizes
from tcc.tools.emitting import Emitter


class Unable(Exception):
    """Why the library cannot be run here."""


def compare(emitter: Emitter, trials: int, tolerance: float) -> None:
    """Mismatch says what differs; Unable, why nothing was compared."""
    this, target = host(), emitter.target
    if target.triple.split("-")[0] != this.triple.split("-")[0] or "linux" not in target.triple:
        raise Unable(f"code for {target.triple} does not run on this machine")
    if any(map(is_kernel, (op for f in emitter.model.module.values() for op in f.body.walk()))):
        raise Unable("it holds kernels written in Python, which no interpreter of the IR has")
    try:
        _ = emitter.shared
    except (building.NoLinker, building.LinkError) as e:
        raise Unable(str(e)) from None
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        file = Path(folder) / "model.tcb"
        file.write_bytes(emitter.bundled())
        reference = tcc.load(file, interpret=True)
        try:
            native = tcc.load(file, trust_native=True)
        except ModelError as e:
            raise Unable(str(e)) from None
        for entry in emitter.model.entries:
            sizes = {n: s for n, s in example_sizes(entry).items() if bounded(entry, n)}
            try:
                verifying.verified(native, reference, entry, trials, 0, sizes, tolerance)
            except verifying.Mismatch:
                raise
            except ValueError as e:
                raise Unable(f"{entry.name}: {e}") from None


def bounded(entry: Any, name: str) -> bool:
    """Whether a size cannot be just any."""
    known = entry.sizes.get(name)
    return known is not None and (known.least > 1 or known.most is not None)
