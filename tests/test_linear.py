"""Compiling takes time linear in the graph: twice the nodes take at most about twice the calls of Python functions.

Calls are counted, not seconds: the number is the same every time.
"""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.ir import dims

GROWTH = 2.15  # calls for twice the nodes

Arguments = tuple[list[Any], Any, list[Any]]  # inputs, outputs, updates


def chain(n: int) -> Arguments:
    x = T.fvector("x")
    y = x
    for k in range(n):
        y = T.tanh(y) if k % 2 else y + x
    return [x], y, []


def slope_of_a_chain(n: int) -> Arguments:
    inputs, y, _ = chain(n)
    return inputs, tcc.grad(y.sum(), inputs[0]), []


def training_step(n: int) -> Arguments:
    """Products, reductions and their gradients."""
    x = T.fmatrix("x")
    h, parameters = x, []
    for _ in range(n // 32):
        parameters.append(tcc.shared(np.ones((4, 4), np.float32)))
        h = T.tanh(T.dot(h, parameters[-1]))
        h = h / (1 + (h * h).mean(axis=0))
    slopes = tcc.grad(h.sum(), parameters)
    return [x], h.sum(), [(w, w - g) for w, g in zip(parameters, slopes)]


def many_inputs(n: int) -> Arguments:
    """Their sizes are found to be equal one by one."""
    xs = [T.fvector(f"x{k}") for k in range(n // 2)]
    y = xs[0]
    for x in xs[1:]:
        y = T.tanh(y) + x
    return xs, y, []


def many_outputs(n: int) -> Arguments:
    x = T.fmatrix("x")
    return [x], [T.exp(x + k).sum(axis=k % 2) for k in range(n // 4)], []


def shift_register(n: int) -> Arguments:
    """Shared variables of one name, each the old value of the next."""
    cells = [tcc.shared(np.ones(4, np.float32), "cell") for _ in range(n // 4)]
    return [], cells[0].sum(), [(a, T.tanh(b)) for a, b in zip(cells, cells[1:])]


def sums_of_all(n: int) -> Arguments:
    """Values that live long."""
    x = T.fmatrix("x")
    values = [x]
    for _ in range(n // 4):
        values.append(T.tanh(values[-1] - values[-1].sum(axis=0)))
    total = values[-1]
    for v in reversed(values):
        total = T.dot(total, v)
    return [x], total, []


def cut_again_and_again(n: int) -> Arguments:
    x = T.fvector("x")
    y = x
    for _ in range(n // 4):
        y = T.tanh(y[1:])
    return [x], y.sum(), []


def joined(n: int) -> Arguments:
    x = T.fvector("x")
    return [x], T.concatenate([T.tanh(x + k) for k in range(n // 4)]), []


def checked_indices(n: int) -> Arguments:
    x, i = T.fvector("x"), T.lscalar("i")
    total = x[0]
    for k in range(n // 4):
        total = total + x[i + k]
    return [x, i], total, []


def counted_sizes(n: int) -> Arguments:
    """Arithmetic on a number that only running tells."""
    x, i = T.fvector("x"), T.lscalar("i")
    count = i
    for k in range(n // 2):
        count = count * 2 - k
    return [x, i], x + count, []


GRAPHS = (
    chain,
    slope_of_a_chain,
    training_step,
    many_inputs,
    many_outputs,
    shift_register,
    sums_of_all,
    cut_again_and_again,
    joined,
    checked_indices,
    counted_sizes,
)


def calls_to_compile(graph: Callable[[int], Arguments], n: int, known: bool) -> int:
    """From the frontend's graph to LLVM text, with all sizes known or with those of the shared variables alone."""
    from tcc.codegen.compile import full_text
    from tcc.codegen.driver import lower
    from tcc.codegen.target import chosen
    from tcc.ir.clone import clone
    from tcc.passes.manager import Context, run
    from tcc.passes.pipeline import cpu_pipeline

    calls = cProfile.Profile(builtins=False)
    with calls:
        inputs, outputs, updates = graph(n)
        function = tcc.function(inputs, outputs, updates=updates)
        func, containers = function.program.func, function.program.containers
        names = {
            name: 4 if p.name in containers else n
            for p in func.body.params
            if known or p.name in containers
            for s in p.type.shape
            for name in dims.names_of(s)
        }
        func = clone(func, names)
        run(func, cpu_pipeline(), Context(verify=1))
        full_text(lower(func, chosen()), chosen())
    return sum(entry.callcount for entry in calls.getstats())


@pytest.mark.parametrize("known", (True, False), ids=("known", "unknown"))
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.__name__)
def test_twice_the_nodes_take_twice_the_calls(graph: Callable[[int], Arguments], known: bool) -> None:
    calls_to_compile(graph, 40, known)  # what is made once a process
    first, second = (calls_to_compile(graph, n, known) for n in (256, 512))
    assert second <= GROWTH * first, f"{first} calls for 256 nodes, {second} for 512"
