"""Weights of models in files: shared variables to and from safetensors and .npz."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcc.ir.arrays import as_numbers
from tcc.ir.safetensors import Tensor, tensor
from tcc.runtime import weights
from tcc.runtime.buffers import Container
from tcc.types import TensorType
from tcc.variable import SharedVariable


def save_weights(path: str | os.PathLike[str], what: Any) -> None:
    """Writes weights to a .safetensors or .npz file, which appears whole or not at all; equal weights give equal bytes.

    `what` is a function (all shared variables that it reads or updates), a shared variable, several of either in a list, or
    a dict from names to shared variables or arrays.  Otherwise the variables' own names are used; two of one name, or one
    without, are named as the function's IR names them, and ValueError says so where there is none.  TypeError for what is
    no array.
    """
    tensors = {name: _tensor(name, value) for name, value in named(what).items()}
    weights.write(Path(path), tensors)


def load_weights(path: str | os.PathLike[str], into: Any = None, strict: bool = True) -> dict[str, Any]:
    """The arrays of a .safetensors or .npz file, by name; with `into`, shared variables take them as their values.

    `into` is as `what` of `save_weights`.  All is checked before the first variable changes: ValueError for a name that the
    file lacks, for another dtype or shape than the variable has now and, if `strict`, for a name that no variable has.
    bfloat16 comes as float32, which holds all of its values.  Nothing is unpickled.
    """
    found = weights.read(Path(path))
    if into is not None:
        variables = named(into)
        wanted = {name: _tensor(name, v) for name, v in variables.items()}
        weights.match(found, wanted, str(path), strict)
        for name, variable in variables.items():
            if not isinstance(variable, SharedVariable):
                raise TypeError(
                    f"{name} is a {type(variable).__name__}, not a shared variable that could take a value"
                )
        for name, variable in variables.items():
            variable.container.set(found[name].array)
    return {name: np.array(as_numbers(t.array, t.dtype)) for name, t in found.items()}


def named(what: Any) -> dict[str, Any]:
    """Names and the shared variables, or arrays, behind them."""
    if isinstance(what, Mapping):
        return {str(name): value for name, value in what.items()}
    variables: dict[int, tuple[SharedVariable, str]] = {}  # by container, with the name to fall back on
    for item in what if isinstance(what, Iterable) and not isinstance(what, SharedVariable) else [what]:
        for variable, fallback in _variables(item):
            variables.setdefault(id(variable.container), (variable, fallback))
    own = [v.name for v, _ in variables.values()]
    made: dict[str, Any] = {}
    for variable, fallback in variables.values():
        unique = variable.name and own.count(variable.name) == 1
        name = str(variable.name) if unique else fallback
        if not name or name in made:
            raise ValueError(
                f"{variable} of {variable.type} has no name of its own; give it one, or pass a dict of names to variables"
            )
        made[name] = variable
    return made


def _variables(item: Any) -> list[tuple[SharedVariable, str]]:
    if isinstance(item, SharedVariable):
        return [(item, "")]
    lowered = getattr(item, "lowered", None)
    if lowered is None:
        raise TypeError(f"weights are of functions and shared variables, not of {type(item).__name__}")
    return list(zip(lowered.shared, lowered.func.attrs.get("shared", ()), strict=True))


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, SharedVariable):
        if not isinstance(value.container, Container) or not isinstance(value.type, TensorType):
            raise TypeError(f"{name} holds a {type(value.container.get(borrow=True)).__name__}, not an array")
        return tensor(value.container.get(), value.type.ir)
    try:
        return tensor(np.asarray(value))
    except TypeError as e:
        raise TypeError(f"{name}: {e}") from None
