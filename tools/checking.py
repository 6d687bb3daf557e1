"""`tcc compile --verify`: the library itself, through its C interface, against the interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tcc
from tcc.codegen.target import host
from tcc.runtime import bundle
from tcc.tools import building, loader, verifying
from tcc.tools.cfiles import example_sizes
from tcc.tools.emitting import Emitter


class Unable(Exception):
    """Why the library cannot be run here."""


class _State:
    """A library's state, as verifying reads and sets it."""

    def __init__(self, model: loader.Model) -> None:
        self._state = model.state

    def set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._state[name][...] = value

    def __getitem__(self, name: str) -> Any:
        state = self._state

        class Variable:
            def get_value(self) -> Any:
                return np.array(state[name])

        return Variable()


class _Native:
    """A library as verifying takes a model."""

    def __init__(self, model: loader.Model, emitter: Emitter) -> None:
        self.state = _State(model)
        returns = {e.name: e for e in emitter.model.entries}
        self.entries = {n: _called(f, returns[n].returns) for n, f in model.entries.items()}


def _called(function: loader.Entry, returns: str) -> Any:
    def call(**given: Any) -> Any:
        made = function(**given)
        if returns == "array":
            return made
        listed = [] if made is None else list(made) if isinstance(made, tuple) else [made]
        return dict(zip(function.results, listed)) if returns == "dict" else listed

    return call


def compare(emitter: Emitter, trials: int, tolerance: float) -> None:
    """Mismatch says what differs; Unable, why nothing was compared."""
    this, target = host(), emitter.target
    if target.triple.split("-")[0] != this.triple.split("-")[0] or "linux" not in target.triple:
        raise Unable(f"code for {target.triple} does not run on this machine")
    odd = [n for n, t in emitter.model.state.items() if t.dtype == "bf16"]
    if odd or any(a.dtype == "bf16" for e in emitter.model.entries for a in e.arguments):
        raise Unable("NumPy has no bfloat16")
    try:
        code = emitter.shared
    except building.NoLinker as e:
        raise Unable(str(e)) from None
    with tempfile.TemporaryDirectory(prefix="tcc-") as folder:
        library, weights = Path(folder) / "libmodel.so", Path(folder) / "weights"
        library.write_bytes(code)
        if emitter.model.state:
            weights.write_bytes(emitter.weights())
        with (Path(folder) / "model.tcb").open("wb") as file:
            file.writelines(bundle.encode(emitter.model.manifest(), emitter.model.members()))
        reference = tcc.load(Path(folder) / "model.tcb", interpret=True)
        try:
            native = _Native(
                loader.load(library, 0, str(weights) if emitter.model.state else None, emitter.name), emitter
            )
        except loader.ModelError as e:
            raise Unable(str(e)) from None
        for entry in emitter.model.entries:
            sizes = {n: s for n, s in example_sizes(entry).items() if bounded(entry, n)}
            try:
                verifying.verified(native, reference, entry, trials, 0, sizes, tolerance)  # type: ignore[arg-type]
            except verifying.Mismatch:
                raise
            except ValueError as e:
                raise Unable(f"{entry.name}: {e}") from None


def bounded(entry: Any, name: str) -> bool:
    """Whether a size cannot be just any."""
    known = entry.sizes.get(name)
    return known is not None and (known.least > 1 or known.most is not None)
