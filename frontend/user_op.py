"""Ops written in Python, in Theano's manner: a class with make_node and perform, or a function under `as_op`."""

from __future__ import annotations

import functools
import importlib
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tcc import graph
from tcc.build import row, shape_of
from tcc.ir.ops.control import Called
from tcc.settings import config
from tcc.testvalues import attach
from tcc.types import TensorType, Type
from tcc.variable import Variable, as_variable

Array = np.ndarray[Any, Any]


class Apply(graph.Apply):
    """An op applied to inputs, giving `outputs`: fresh variables that say the results' types."""

    __slots__ = ()

    def __init__(self, op: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        values = [v if isinstance(v, Variable) else as_variable(v) for v in inputs]
        types = [o.type for o in outputs]
        for t in types:
            if not isinstance(t, Type):
                raise TypeError(f"{op}: outputs must be variables of some type, got one of {t}")
        native = getattr(op, "native_node", None)
        if native is not None:
            node = native(*values, *types)
            super().__init__(node.defn, node.operands, node.attrs, types, shown=node.shown)
            self._adopt(outputs)
            return
        attrs: dict[str, Any] = {"name": str(op), "types": types, "sizes": [], "function": None, "op": op}
        super().__init__(row("call"), values, attrs, types)
        attrs |= {"function": Performing(op, self), "gradient": _gradient(op, self)}
        self._adopt(outputs)
        attrs["sizes"] = [
            s for one in self._sizes(op, values, types) for s in one
        ]  # infer_shape sees the whole node
        self.extra = tuple(graph.variables_in(attrs))
        if config.compute_test_value != "off":
            attach(self)

    def _adopt(self, outputs: Sequence[Any]) -> None:
        """Makes a program's own variables the results."""
        for number, (output, made) in enumerate(zip(outputs, self.results)):
            output.owner, output.index, output.loc = self, number, made.loc
        self.results = tuple(outputs)

    def _sizes(self, op: Any, inputs: Sequence[Any], types: Sequence[TensorType]) -> list[list[Any]]:
        """The results' sizes by the op's infer_shape; None for one that is only known when the op has run, which infer_shape
        says by NotImplementedError or by the result's own size.  What is no array has none."""
        infer, plain = getattr(op, "infer_shape", None), [list(getattr(t, "shape", ())) for t in types]
        if infer is None:
            return plain
        try:
            shapes = infer(self, [shape_of(v) if isinstance(v.type, TensorType) else None for v in inputs])
        except NotImplementedError:
            return plain
        shapes = [s if isinstance(t, TensorType) else () for s, t in zip(shapes, types)]
        if len(shapes) != len(types) or any(
            len(s) != len(getattr(t, "shape", ())) for s, t in zip(shapes, types)
        ):
            raise ValueError(f"{op}.infer_shape gave {shapes} for results of {types}")

        def told(size: Any) -> Any:
            own = isinstance(size, Variable) and any(
                v.owner is self for v in graph.ancestors([size], blockers=inputs)
            )
            return None if own else size

        return [
            [known if known is not None else told(s) for s, known in zip(one, all_known)]
            for one, all_known in zip(shapes, plain)
        ]


def _gradient(op: Any, node: Apply) -> Callable[..., Any] | None:
    """L_op(inputs, outputs, output_grads) of an op that has it, else its grad(inputs, output_grads)."""
    pull = getattr(op, "L_op", None)
    if pull is None:
        return getattr(op, "grad", None)
    return functools.partial(_pulled, pull, node)


def _pulled(pull: Callable[..., Any], node: Apply, inputs: Sequence[Any], grads: Sequence[Any]) -> Any:
    return pull(inputs, list(node.results), grads)


class Op:
    """The base of Python ops.  `make_node(*inputs)` returns an Apply; `perform(node, inputs, output_storage)` computes.

    `output_storage[i][0]` takes result i.  `__props__` names the attributes that make two ops equal, and print.
    `infer_shape(node, input_shapes)`, `grad(inputs, output_grads)` or `L_op(inputs, outputs, output_grads)`, and
    `R_op(inputs, eval_points)`, whose points are None for inputs that do not move, are optional.
    """

    __props__: tuple[str, ...] | None = None
    itypes: Sequence[TensorType] | None = None
    otypes: Sequence[TensorType] | None = None

    def make_node(self, *inputs: Any) -> Apply:
        if self.itypes is None or self.otypes is None:
            raise NotImplementedError("You can either define itypes and otypes, or implement make_node")
        values = [as_variable(v) for v in inputs]
        if len(values) != len(self.itypes):
            raise ValueError(f"We expected {len(self.itypes)} inputs but got {len(values)}.")
        for v, t in zip(values, self.itypes):
            if v.type != t:
                raise TypeError(
                    f"We expected inputs of types '{list(self.itypes)}' but got types '{[v.type for v in values]}'"
                )
        return Apply(self, values, [t() for t in self.otypes])

    def perform(self, node: Any, inputs: list[Array], output_storage: list[list[Any]]) -> None:
        has = "c_code alone, which tcc does not run" if hasattr(self, "c_code") else "no perform"
        raise NotImplementedError(f"the op {self} has {has}: define perform(node, inputs, output_storage)")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        name = kwargs.pop("name", None)
        outputs = list(self.make_node(*inputs, **kwargs).results)
        if len(outputs) != 1:
            return outputs
        outputs[0].name = name
        return outputs[0]

    def _props(self) -> tuple[Any, ...]:
        """The values of `__props__`, under Theano's name, which programs look for."""
        return tuple(getattr(self, p) for p in self.__props__ or ())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return self.__props__ is not None and type(self) is type(other) and self._props() == other._props()

    def __hash__(self) -> int:
        return id(self) if self.__props__ is None else hash((type(self), self._props()))

    def __str__(self) -> str:
        if not self.__props__:
            return type(self).__name__
        return f"{type(self).__name__}{{{', '.join(f'{p}={getattr(self, p)}' for p in self.__props__)}}}"

    __repr__ = __str__


class Performing(Called):
    """perform as a function from arrays to arrays of the declared types."""

    def __init__(self, op: Any, node: Apply) -> None:
        self._op, self.node = op, node

    @property
    def op(self) -> Any:
        return self._op

    @property
    def on_device(self) -> Callable[..., bool] | None:
        """Of a tcc.cuda_op."""
        return getattr(self.op, "device_perform", None)

    @property
    def kernels(self) -> Callable[..., Any] | None:
        """Of a tcc.kernel."""
        return getattr(self.op, "kernels", None)

    @property
    def want(self) -> Callable[..., None] | None:
        return getattr(self.op, "want", None)

    def __call__(self, *arrays: Array) -> list[Array]:
        op, node = self.op, self.node
        storage: list[list[Any]] = [[None] for _ in node.results]
        destroyed = {k for operands in (getattr(op, "destroy_map", None) or {}).values() for k in operands}
        op.perform(node, [a.copy() if k in destroyed else a for k, a in enumerate(arrays)], storage)
        return [self._checked(k, s[0]) for k, s in enumerate(storage)]

    def _checked(self, number: int, made: Any) -> Any:
        declared = self.node.results[number].type
        if made is None and isinstance(declared, TensorType):
            raise ValueError(f"{self.op} made no result {number}, which it declares to be {declared}")
        value = np.asarray(made) if isinstance(declared, TensorType) else made
        try:
            return declared.filter(value)
        except (TypeError, ValueError) as e:
            e.args = (f"result {number} of {self.op}: {e}",)
            raise


def pass_on(inputs: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
    """The gradient of what gives its first inputs on."""
    return [*grads, *(None for _ in inputs[len(grads) :])]


class Probed:
    """A function whose results are asked for more than once, and that runs once: what it made is kept from the first question,
    such as that for sizes that only it can tell, to the last, `results`.
    """

    def __init__(self, function: Callable[..., list[Array]]) -> None:
        self.function = function
        self.kept = threading.local()

    def sizes(self, *arrays: Array) -> list[Array]:
        """Runs it.  The results' sizes, axis by axis, as int64 scalars."""
        self.run(*arrays)
        return self.sizes_kept()

    def run(self, *arrays: Array) -> list[Array]:
        made: list[Array] = self.function(*arrays)
        self.kept.results = made
        return made

    def sizes_kept(self, *_: Array) -> list[Array]:
        return [np.asarray(n, np.int64) for r in self.kept.results for n in r.shape]

    def results_kept(self, *_: Array) -> list[Array]:
        made: list[Array] = self.kept.results
        return made

    def results(self, *arrays: Array) -> list[Array]:
        made = self.results_kept()
        del self.kept.results
        return made

    def asked_twice(self, question: Any) -> tuple[Any, Any]:
        """Who asks first and who asks second, where what asks `question`, or calls the function itself, is there twice."""
        if question in (self.sizes_kept, self.results_kept):
            return question, question
        if question == self.sizes:
            return self.sizes, self.sizes_kept
        if question == self.run:  # `results` comes later
            return self.run, self.results_kept
        if question == self.results:
            return self.results_kept, self.results
        return self.run, self.results


def probed_by(function: Any) -> Probed | None:
    """That of which a called function is one of the questions."""
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, Probed) else None


def call(
    name: str,
    function: Callable[..., list[Array]],
    inputs: Sequence[Any],
    types: Sequence[Any],
    like: Sequence[Any],
    sizes: list[Any] | None = None,
) -> Any:
    """Results of a Python function on arrays; result i has the sizes of the variable like[i], and passes gradients on.

    `sizes` gives all results' sizes instead, axis by axis, None for one that is known when the function has run.
    """
    if sizes is None:
        sizes = [s for v in like for s in shape_of(v)]
    attrs = {
        "name": name,
        "types": list(types),
        "sizes": sizes,
        "function": function,
        "gradient": pass_on,
    }
    return graph.Apply(row("call"), inputs, attrs, types).results


class FromFunctionOp(Op):
    """A Python function as an op."""

    def __init__(
        self, fn: Callable[..., Any], itypes: Sequence[Any], otypes: Sequence[Any], infer_shape: Any
    ) -> None:
        self.fn, self.itypes, self.otypes = fn, list(itypes), list(otypes)
        if infer_shape is not None:
            self.infer_shape = infer_shape

    def perform(self, node: Any, inputs: list[Array], output_storage: list[list[Any]]) -> None:
        made = self.fn(*inputs)
        results = list(made) if isinstance(made, list | tuple) else [made]
        if len(results) != len(output_storage):
            raise ValueError(f"{self} returned {len(results)} results, otypes has {len(output_storage)}")
        for storage, result in zip(output_storage, results):
            storage[0] = result

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.fn is other.fn

    def __hash__(self) -> int:
        return hash(self.fn)

    def __str__(self) -> str:
        return f"FromFunctionOp{{{self.fn.__name__}}}"

    def __reduce__(self) -> tuple[Any, ...]:
        """By the name that a module has for the op, which took that of its function."""
        home, name = self.fn.__module__, self.fn.__name__
        if getattr(sys.modules.get(home), name, None) is not self:
            raise pickle.PicklingError(f"{self} can be pickled where it is {home}.{name} alone")
        return _found, (home, name)


def _found(home: str, name: str) -> Any:
    return getattr(importlib.import_module(home), name)


def as_op(
    itypes: Any, otypes: Any, infer_shape: Any = None
) -> Callable[[Callable[..., Any]], FromFunctionOp]:
    """Turns a function of arrays into an op: `@as_op(itypes=[T.dmatrix], otypes=[T.dmatrix])`."""

    def types(given: Any) -> list[Any]:
        listed = list(given) if isinstance(given, list | tuple) else [given]
        return [t if isinstance(t, TensorType) else t().type for t in listed]

    return lambda fn: FromFunctionOp(fn, types(itypes), types(otypes), infer_shape)
