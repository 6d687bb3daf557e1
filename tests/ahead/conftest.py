"""Libraries of models, loaded by the ctypes loader through whatever linker there is, or through LLVM's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tcc.ahead import library, with_shapes
from tcc.codegen.aot import library as aot
from tcc.codegen.target import Target, host
from tcc.exporting import exported
from tcc.runtime import library as loader
from tcc.runtime.manifest import Range
from tcc.tools.building import NoLinker, shared_library


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    """`build({entry: function}, shapes, threads=, target=, embed=)`: the model behind its library, called `m`."""
    count = 0

    def made(
        functions: Mapping[str, Any],
        shapes: Mapping[str, tuple[Any, ...]] | None = None,
        threads: int = 1,
        target: Target | None = None,
        embed: bool = True,
        weights: str | None = None,
        ranges: Mapping[str, Range] | None = None,
    ) -> loader.Model:
        nonlocal count
        count += 1
        model = with_shapes(exported(functions, "m"), shapes or {}, ranges)
        target = target or host()
        path = tmp_path / f"libm{count}.so"
        try:
            path.write_bytes(
                shared_library(aot.library_object(library(model, target, threads, embed)), target)
            )
        except NoLinker as e:
            pytest.skip(str(e))
        return loader.load(path, weights=weights, name="m")

    return made
