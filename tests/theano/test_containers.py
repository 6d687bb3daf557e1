"""What functions keep for their inputs, files of pickled graphs, breakpoints and canonical slices, under Theano's names."""

from __future__ import annotations

import copy
import importlib
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
import tcc.theano
from tcc.theano.names import INTERNAL, TREE

theano = tcc.theano.install()


def test_functions_share_a_container() -> None:
    x, s = T.dscalars("x", "s")
    add = tcc.function([x, tcc.In(s, value=10.0, update=s + x)], [])
    take = tcc.function([x, tcc.In(s, value=add.container[s], update=s - x)], s)
    assert take.container["s"] is add.container[s] and take[s] is add[s]
    add(5.0)
    assert float(take(1.0)) == 15 and float(add["s"]) == 14
    add["s"] = 2
    assert float(take(0.5)) == 2 and float(add.value[s]) == float(take[1]) == 1.5
    with pytest.raises(KeyError, match="no input"):
        add.container[T.dscalar()]


def test_defaults_and_shared_variables_have_containers() -> None:
    x, w = T.dscalar("x"), tcc.shared(2.0, "w")
    f = tcc.function([tcc.In(x, value=3.0)], x * w)
    assert float(f()) == 6 and x in f and f.container[w] is w.container
    f[x] = 4
    f["w"] = 0.5
    assert float(f()) == 2 and float(w.get_value()) == 0.5


def test_copies_keep_values_apart() -> None:
    x, s = T.dscalars("x", "s")
    f = tcc.function([x, tcc.In(s, value=0.0, update=s + x)], s + x)
    f(3.0)
    for made in (
        copy.copy(f),
        copy.deepcopy(f),
        f.copy(),
        *(pickle.loads(pickle.dumps(f, p)) for p in range(3)),
    ):
        assert made.container[1].storage is not f.container[1].storage
        assert float(made(1.0)) == 4 and float(f[s]) == 3
    first, second = copy.deepcopy([f, tcc.function([x, tcc.In(s, value=f.container[s])], s - x)])
    first(1.0)
    assert float(second(1.0)) == 3  # what was shared still is


def test_names_of_inputs() -> None:
    a, b = T.dscalars("x", "x")
    f = tcc.function([a, b], a - b)
    assert float(f(3, 1)) == 2
    with pytest.raises(TypeError, match="names 2 inputs"):
        f(3, x=1)
    with pytest.raises(TypeError, match="must be a string"):
        tcc.In(a, name=7)  # type: ignore[arg-type]


def test_files_of_objects(tmp_path: Path) -> None:
    pkl = importlib.import_module("theano.misc.pkl_utils")
    w, again, b = tcc.shared(np.arange(3.0), "w"), tcc.shared(1, "w"), tcc.shared(np.float32(2))
    path = tmp_path / "model.zip"
    with path.open("wb") as f:
        pkl.dump({"parameters": [w, again, b, w], "array": np.eye(2)}, f)
    assert sorted(np.load(path).keys()) == ["array_0", "array_1", "pkl", "w", "w_2"]
    with path.open("rb") as f:
        loaded = pkl.load(f)
    first, second, third, fourth = loaded["parameters"]
    assert first is fourth and first.name == "w" and first.get_value().tolist() == [0, 1, 2]
    assert (
        int(second.get_value()) == 1 and third.type == b.type and loaded["array"].tolist() == [[1, 0], [0, 1]]
    )
    assert tcc.function([], first * 2)().tolist() == [0, 2, 4]


def test_a_dumped_function(tmp_path: Path) -> None:
    x = T.dvector("x")
    x.tag.test_value = np.ones(2)
    path = tmp_path / "f.pkl"
    theano.function_dump(str(path), [x], x + 1, name="g")
    with path.open("rb") as f:
        options = pickle.load(f)
    assert not hasattr(options["inputs"][0].tag, "test_value")
    assert theano.function(**options)([1.0, 2.0]).tolist() == [2, 3]


def test_a_breakpoint_stops_where_its_condition_holds() -> None:
    from theano.tests.breakpoint import PdbBreakpoint  # type: ignore[import-not-found]

    seen: list[Any] = []

    class Noted(PdbBreakpoint):  # type: ignore[misc]
        def debug(self, inputs: list[Any]) -> None:
            seen.append([x.tolist() for x in inputs])

    x, y = T.dvector("x"), T.dscalar("y")
    op = Noted("large")
    a, b = op(T.gt(x.sum(), 10), x, y)
    f = tcc.function([x, y], [a * b, *tcc.grad((a * b).sum(), [x, y])])
    assert [v.tolist() for v in f([1.0, 2.0], 3.0)] == [[3, 6], [3, 3], 3] and not seen
    f([9.0, 2.0], 3.0)
    assert seen == [[[9, 2], 3]]
    assert op.connection_pattern(a.owner) == [[0, 0], [1, 0], [0, 1]]
    with pytest.raises(TypeError, match="scalar"):
        op(x, y)


@pytest.mark.parametrize("known", list(itertools.product((False, True), repeat=4)))
def test_canonical_slices(known: tuple[bool, ...]) -> None:
    from theano.tensor.subtensor import get_canonical_form_slice  # type: ignore[import-not-found]

    bounds = itertools.product((-9, -2, 0, 3), (-6, -1, 2, 9), (-3, -1, 1, 2), (0, 1, 5))
    made: dict[Any, Any] = {}
    for values in bounds:
        key = tuple(v for v, k in zip(values, known) if k)
        if key not in made:
            names = T.lscalars("start", "stop", "step", "length")
            given = [v if k else name for v, k, name in zip(values, known, names)]
            s, sign = get_canonical_form_slice(slice(*given[:3]), given[3])
            parts = [T.as_tensor_variable(v) for v in (s.start, s.stop, s.step, sign)]
            made[key] = tcc.function(list(names), parts, on_unused_input="ignore", mode="FAST_COMPILE")
        low, high, by, sign = map(int, made[key](*values))
        line = np.arange(values[3])
        assert 0 <= low <= high <= values[3] and by > 0
        assert line[low:high:by][::sign].tolist() == line[slice(*values[:3])].tolist()
    assert get_canonical_form_slice(-1, 4) == (3, 1)
    with pytest.raises(ValueError, match="zero"):
        get_canonical_form_slice(slice(0, 2, 0), 4)


def test_parts_of_theanos_compiler_are_named_as_such() -> None:
    for path in INTERNAL:
        parent = path.rpartition(".")[0]
        assert path not in TREE and any(known.startswith(parent) for known in TREE), path
        with pytest.raises(ModuleNotFoundError, match="Theano's own compiler"):
            importlib.import_module(f"theano.{path}")
