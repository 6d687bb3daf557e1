"""What all functions have: inputs with options and defaults, and the recipe that they are made, copied and pickled by."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tcc.fgraph import Maker
from tcc.graph import Listing, rebuild
from tcc.ir.types import FROM_NUMPY
from tcc.locations import place
from tcc.lower import lower
from tcc.runtime.callable import Parameter
from tcc.types import TensorType

if TYPE_CHECKING:
    from tcc.modes import Mode


class InputContainer:
    """What an input has when it is left out: `value`, which is `storage[0]`.  Functions share one that is given to them as
    `In(value=f.container[x])`."""

    def __init__(self, value: Any = None) -> None:
        self.storage = [value]

    @property
    def value(self) -> Any:
        return self.storage[0]

    @value.setter
    def value(self, value: Any) -> None:
        self.storage[0] = value


class In:
    """An input with options: `value` is its default, or a container (`f.container[x]`) that another function keeps it in;
    `name` is its keyword, `allow_downcast` and `strict` say how it converts.  TypeError if the name is no string.

    With `update`, an expression of the variable's type, each call leaves its value behind as the new default.
    `mutable` lets ops that overwrite their operands (`destroy_map`) overwrite the caller's array.
    """

    overwritten: Any = None  # what an op leaves in the caller's array

    def __init__(
        self,
        variable: Any,
        name: str | None = None,
        value: Any = None,
        update: Any = None,
        mutable: bool | None = None,
        strict: bool = False,
        borrow: bool | None = None,
        allow_downcast: bool | None = None,
        autoname: bool = True,
        implicit: bool | None = None,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of an input must be a string, got {name!r}")
        if update is not None:
            update = _of_type(variable, update)
        self.variable, self.value, self.strict, self.allow_downcast = variable, value, strict, allow_downcast
        self.update = update
        self.name = name or (variable.name if autoname else None)
        self.mutable, self.borrow, self.implicit = bool(mutable), bool(borrow), implicit


def _of_type(variable: Any, update: Any) -> Any:
    try:
        return variable.type.filter_variable(update, allow_convert=False)
    except TypeError as e:
        raise TypeError(
            f"the update of the input {variable} must be of its type, {variable.type}: {e}"
        ) from e


@dataclass(frozen=True)
class Recipe:
    """What a function is made of; pickled and copied functions are made again."""

    inputs: list[In]
    outputs: list[Any]
    updates: list[tuple[Any, Any]]
    name: str
    mode: Mode
    returns: str
    device: str | None = None  # None: what `config.device` says when it is made
    stay: frozenset[int] = frozenset()  # outputs that are left on the device

    def make(self, containers: Sequence[InputContainer] | None = None) -> Any:
        """The function; `containers` hold the inputs' defaults, new ones if none are given."""
        from tcc.packing import wrapped

        containers = [container_of(i) for i in self.inputs] if containers is None else list(containers)
        made = wrapped(self, containers)
        if made is not None:
            return made
        lowered = lower([i.variable for i in self.inputs], self.outputs, self.updates, _symbol(self.name))
        lowered.device, lowered.stay = self.device, self.stay
        parameters = [
            parameter(i, number, self.name, container)
            for number, (i, container) in enumerate(zip(self.inputs, containers))
        ]
        made = self.mode.make(self.name, parameters, lowered, self.returns)
        made.recipe, made.containers = self, containers
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (
            self.inputs,
            self.outputs,
            self.updates,
            self.name,
            self.mode,
            self.returns,
            self.device,
            self.stay,
        )
        return _recipe, (Listing([*self.outputs, *(e for _, e in self.updates)]), *fields)

    def changed(self, swap: Mapping[Any, Any], delete_updates: bool, name: str | None) -> Recipe:
        """With shared variables in place of others, without updates, or under another name."""
        pairs = [] if delete_updates else self.updates
        kept = left_behind(self.inputs)
        made = rebuild([*self.outputs, *(e for _, e in pairs), *kept], swap)
        count = len(self.outputs)
        updates = [(swap.get(s, s), e) for (s, _), e in zip(pairs, made[count:])]
        inputs = with_updates(self.inputs, made[count + len(pairs) :])
        return replace(self, inputs=inputs, outputs=made[:count], updates=updates, name=name or self.name)


def left_behind(inputs: Sequence[In]) -> list[Any]:
    """The expressions whose values calls leave behind: as new defaults, and in the callers' arrays."""
    return [e for i in inputs for e in (i.update, i.overwritten) if e is not None]


def with_updates(inputs: Sequence[In], expressions: Sequence[Any]) -> list[In]:
    """The inputs, what they leave behind (`left_behind`) replaced by these."""
    left = iter(expressions)
    made = []
    for i in inputs:
        if i.update is not None or i.overwritten is not None:
            i = copy.copy(i)
            i.update = next(left) if i.update is not None else None
            i.overwritten = next(left) if i.overwritten is not None else None
        made.append(i)
    return made


def _recipe(nodes: Sequence[Any], *fields: Any) -> Recipe:
    return Recipe(*fields)


class Containers(Mapping[Any, Any]):
    """The containers of a function's inputs and shared variables, by variable, name or number of the input."""

    def __init__(self, function: Made) -> None:
        self.found = list(function.containers)
        self.inputs = [i.variable for i in function.recipe.inputs]
        self.names = [i.name for i in function.recipe.inputs]
        self.shared: list[Any] = function.maker.fgraph.inputs[len(self.inputs) :]
        self.names += [v.name for v in self.shared]

    def number(self, key: Any) -> int:
        """Which one it is; those of shared variables follow those of inputs.  KeyError if there is none."""
        variables = [*self.inputs, *self.shared]
        if isinstance(key, int) and -len(variables) <= key < len(variables):
            return key % len(variables)
        if isinstance(key, str) and key in self.names:
            return self.names.index(key)
        for number, v in enumerate(variables):
            if v is key:
                return number
        raise KeyError(f"the function has no input {key!r}")

    def __getitem__(self, key: Any) -> Any:
        number = self.number(key)
        count = len(self.found)
        return self.found[number] if number < count else self.shared[number - count].container

    def __iter__(self) -> Iterator[Any]:
        return iter([*self.inputs, *self.shared])

    def __len__(self) -> int:
        return len(self.inputs) + len(self.shared)


class Made:
    """What compiled and interpreted functions have in common: the recipe, with which they are copied and pickled.

    `f["name"]`, `f[variable]` or `f[number]` is the value that an input has when it is left out; it can be set.
    """

    name: str
    parameters: tuple[Parameter, ...]
    recipe: Recipe
    containers: Sequence[InputContainer]
    profile: Any = None
    trust_input: bool = False  # Theano's word for leaving checks out, which cost little enough here to stay

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}({', '.join(p.name for p in self.parameters)})>"

    @property
    def container(self) -> Containers:
        """The container of each input: see `In`."""
        return Containers(self)

    @property
    def value(self) -> Any:
        """`f.value["name"]`: the same as `f["name"]`."""
        return self

    def __getitem__(self, key: Any) -> Any:
        held = self.container
        number = held.number(key) - len(held.found)
        return held[key].value if number < 0 else held.shared[number].get_value()

    def __setitem__(self, key: Any, value: Any) -> None:
        held = self.container
        number = held.number(key) - len(held.found)
        if number < 0:
            held[key].value = self.parameters[number].convert(value)
        else:
            held.shared[number].set_value(value)

    def __contains__(self, key: Any) -> bool:
        return key in self.container

    @property
    def output_variables(self) -> Sequence[Any]:
        return self.recipe.outputs

    @property
    def maker(self) -> Maker:
        """Theano's way to the inputs, the mode and the graph of a function."""
        return Maker(self.recipe)

    @property
    def update_variables(self) -> Sequence[Any]:
        return self.recipe.updates

    def get_shared(self) -> list[Any]:
        """The shared variables that it reads or updates."""
        return list(self.container.shared)

    def copy(
        self,
        name: str | None = None,
        share_memory: bool = False,
        swap: Mapping[Any, Any] | None = None,
        delete_updates: bool = False,
    ) -> Any:
        """Another function of the same recipe and the same shared variables.

        `swap` puts shared variables of the same types in place of others; with `delete_updates` nothing is updated.
        TypeError names a pair of different types.
        """
        for old, new in (swap or {}).items():
            if old.type != new.type:
                raise TypeError(f"copy: swap has {new}, a {new.type}, for {old}, a {old.type}")
        return self.recipe.changed(swap or {}, delete_updates, name).make(self._copied_containers())

    def _copied_containers(self) -> list[InputContainer]:
        """Others of the same values; those that calls change are copied."""
        return [
            InputContainer(copy.copy(c.value) if i.mutable or i.update is not None else c.value)
            for i, c in zip(self.recipe.inputs, self.containers)
        ]

    def __copy__(self) -> Any:
        return _with_trust(self.recipe.make(self._copied_containers()), self.trust_input)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.recipe, list(self.containers), self.trust_input)


def _made(recipe: Recipe, containers: Sequence[InputContainer], trusted: bool) -> Any:
    return _with_trust(recipe.make(containers), trusted)


def _with_trust(function: Any, trusted: bool) -> Any:
    if trusted:
        function.trust_input = True
    return function


def container_of(i: In) -> InputContainer:
    """The container of an input's default: the one that it is given, or a new one with its value as functions take it."""
    if isinstance(i.value, InputContainer):
        return i.value
    return InputContainer(
        None if i.value is None else i.variable.type.filter(i.value, i.strict, i.allow_downcast)
    )


def parameter(i: In, number: int, function_name: str, container: InputContainer) -> Parameter:
    """The input as what is called sees it; its default is what is in the container."""
    v, kind = i.variable, i.variable.type
    strict, allow = i.strict, i.allow_downcast

    def convert(value: Any) -> Any:
        try:
            return kind.filter(value, strict, allow)
        except (TypeError, ValueError) as e:
            said = f" {i.name}" if i.name else ""
            first = f'Bad input argument{said} to theano function with name "{function_name}" at index {number} (0-based).\n'
            if place(v.loc):
                first += f"Backtrace when that variable is created:\n\n  {place(v.loc)}\n\n"
            e.args = (first + " ".join(map(str, e.args)),)
            raise e.with_traceback(
                None
            ) from None  # which argument is wrong says enough, not where that was seen

    name = i.name or f"input_{number}"

    def held() -> Any:
        if container.value is None:
            raise TypeError(f"{function_name}: Missing required input: {name}")
        return container.value

    default = held if i.value is not None or i.update is not None else None
    dtype = FROM_NUMPY[kind.numpy_dtype.name] if isinstance(kind, TensorType) else "object"
    return Parameter(name, dtype, kind.ndim, convert, default)


def _symbol(name: str) -> str:
    """The function's name in the IR: without the folder of the file that made it."""
    text = "".join(c if c.isalnum() else "_" for c in os.path.basename(name))
    return text if text[:1].isalpha() or text[:1] == "_" else f"f{text}"


class DictFunction:
    """A function whose outputs have names."""

    def __init__(self, inner: Any, keys: Sequence[str]) -> None:
        self.inner, self.keys = inner, list(keys)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(zip(self.keys, self.inner(*args, **kwargs)))

    def __reduce__(self) -> tuple[Any, ...]:
        return DictFunction, (self.inner, self.keys)

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inner[key] = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
