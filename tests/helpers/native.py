"""Runs fused-level text through placement, planning and native code, beside the interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.codegen.compile import compile_lowered
from tcc.codegen.driver import lower
from tcc.codegen.image import load
from tcc.codegen.target import chosen
from tcc.ir.clone import clone
from tcc.ir.core import Func
from tcc.ir.interpret import run as interpret
from tcc.ir.text import parse
from tcc.ir.verify import verify
from tcc.passes.manager import Context
from tcc.passes.place import place
from tcc.passes.plan import plan
from tcc.runtime.buffers import Container
from tcc.runtime.callable import Function, Parameter, Variant
from tcc.runtime.signature import InputSpec, Signature


def only(text: str) -> Func:
    (func,) = parse(text).values()
    verify(func)
    return func


def native(func: Func, containers: Mapping[str, Container], sizes: Mapping[str, int]) -> Function:
    """The function compiled with `sizes` put in, all other sizes left to run time."""
    g = clone(func, sizes)
    for step in (place, plan):
        step(g, Context())
        verify(g)
    lowered = lower(g, chosen())
    image, entry = load(compile_lowered(lowered, chosen()), chosen())
    own = [containers[s.name] for s in lowered.signature.shared if s.name in containers]
    variant = Variant(
        lowered.signature,
        entry,
        image,
        containers=[*own, *(Container(c) for c in lowered.constants)],
    )
    params = [
        Parameter(p.name, p.type.dtype, p.type.rank, np.asarray)
        for p in func.body.params
        if p.name not in containers
    ]
    return Function(func.name, params, lambda function, arrays: variant)


def check(
    text: str,
    args: Sequence[Any],
    shared: Mapping[str, Any] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Function:
    """Native results, with run-time and with exact sizes, are the interpreter's; the two agree bit for bit."""
    func = only(text)
    shared = shared or {}
    rest = iter(args)
    everything = [shared[p.name] if p.name in shared else next(rest) for p in func.body.params]
    want = interpret(func, *everything)
    bound = Signature(tuple(InputSpec(p.type.dtype, p.type.shape) for p in func.body.params)).bind(
        [np.shape(a) for a in everything]
    )
    updates = {index: name for name, index in func.attrs.get("updates", {}).items()}
    seen: list[list[Any]] = []
    for sizes in ({}, dict(bound)):
        containers = {name: Container(np.array(v)) for name, v in shared.items()}
        function = native(func, containers, sizes)
        outputs = iter(function(*args))
        got = [containers[updates[i]].get() if i in updates else next(outputs) for i in range(len(want))]
        for g, w in zip(got, want, strict=True):
            assert g.dtype == w.dtype and g.shape == w.shape
            np.testing.assert_allclose(g, w, rtol=rtol, atol=atol)
        seen.append(got)
    for any_size, exact in zip(*seen, strict=True):
        np.testing.assert_array_equal(any_size, exact)
    return function
