"""The compatibility tree: `import theano`, and everything under its paths."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor
import tcc.theano
from tcc.theano.names import TREE
from tcc.theano.tree import target


@pytest.fixture(autouse=True)
def installed() -> None:
    tcc.theano.install()


@pytest.mark.parametrize("path", list(TREE), ids=lambda p: p or "theano")
def test_every_module_imports_and_every_name_has_its_target(path: str) -> None:
    full = f"theano.{path}".rstrip(".")
    module = importlib.import_module(full)
    assert module is sys.modules[full]
    for name, text in TREE[path].names.items():
        found = getattr(module, name)
        assert found is target(text) or found == target(text)
    for name in module.__all__:
        assert hasattr(module, name)


def test_every_module_has_something() -> None:
    """One that names a native module which is not there would be empty."""
    modules = {p: importlib.import_module(f"theano.{p}".rstrip(".")) for p in TREE}
    empty = [p for p, m in modules.items() if not TREE[p].names and not m.__all__]
    assert empty == []


def test_one_module_under_both_names() -> None:
    theano = importlib.import_module("theano")
    assert importlib.import_module("tcc.theano.tensor.nnet") is theano.tensor.nnet
    assert theano.theano is theano and tcc.theano.tensor is theano.tensor
    assert theano.tensor.exp is tcc.tensor.exp


def test_modules_are_somewhere() -> None:
    theano = importlib.import_module("theano")
    assert Path(theano.__file__).is_file() and Path(theano.tensor.__file__).is_file()


def test_the_device_is_chosen_before_the_program_runs() -> None:
    theano = importlib.import_module("theano")
    with pytest.raises(
        Exception, match="Can't change the value of this config parameter after initialization!"
    ):
        theano.config.device = "cuda0"
    assert theano.config.device == tcc.config.device and isinstance(theano.config, type(tcc.config))
    with tcc.change_flags(floatX="float32", device="cpu"):
        assert theano.config.floatX == "float32"
        theano.config.floatX = "float64"
        assert tcc.config.floatX == "float64" and theano.tensor.config is theano.config


def test_star_imports() -> None:
    names: dict[str, Any] = {}
    exec("from theano import *\nfrom theano.tensor import *", names)
    assert {"function", "shared", "scalar", "dot", "set_subtensor"} <= names.keys()


def test_unknown_names() -> None:
    theano = importlib.import_module("theano")
    with pytest.raises(AttributeError, match="'theano.tensor' has no attribute 'nope'"):
        theano.tensor.nope  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("theano.nope")
    assert not hasattr(theano, "__path_hooks__")


def test_queries_of_graphs() -> None:
    graph = importlib.import_module("theano.gof.graph")
    theano = importlib.import_module("theano")
    x = theano.tensor.dvector("x")
    w = theano.shared(np.ones(2), "w")
    y = theano.tensor.exp(x * w)
    assert [str(v) for v in graph.inputs([y])] == ["x", "w"]
    assert graph.inputs([y], blockers=[y.owner.inputs[0]]) == [y.owner.inputs[0]]
    assert x in graph.ancestors([y]) and graph.is_same_graph(y, theano.tensor.exp(x * w))
    assert len(graph.io_toposort([x], [y])) == 2
    assert {type(v) for v in graph.variables([x], [y])} >= {theano.tensor.TensorVariable}


def test_constants_and_dtypes() -> None:
    theano = importlib.import_module("theano")
    assert theano.tensor.get_scalar_constant_value(theano.tensor.constant(3)) == 3
    assert theano.tensor.get_scalar_constant_value(theano.tensor.constant(3) + 1) == 4
    with pytest.raises(theano.tensor.NotScalarConstantError):
        theano.tensor.get_scalar_constant_value(theano.tensor.iscalar())
    assert theano.scalar.upcast("int32", "float32") == "float64"
    assert theano._asarray([1], dtype="floatX").dtype == theano.config.floatX
    with pytest.warns(UserWarning, match="cuda"):
        theano.gpuarray.use("cuda")


PROGRAM = """
import os
import sys
os.environ["THEANO_FLAGS"] = "mode=FAST_COMPILE,lib.cnmem=0.8,nosuch=1"
import theano
import theano.tensor as T
from theano.tensor.nnet import ctc
from theano import config, function, shared
from theano.compile.nanguardmode import NanGuardMode

x = T.dvector("x")
f = function([x], T.nnet.sigmoid(x).sum(), mode=theano.compile.mode.Mode(linker="py"))
print(f([0.0, 0.0]), sys.argv[1:], __name__, theano.__version__, ctc.__name__)
print(config.floatX, config.mode, config.optimizer, config.lib.cnmem, config.nvcc.fastmath, config.device)
"""


def test_a_program_runs_unmodified(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    rc = tmp_path / "rc"
    rc.write_text(
        "[global]\nfloatx = float32\nmode = FAST_RUN\noptimizer=None\ndevice=cuda0\n[nvcc]\nfastmath = True\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "tcc.theano", str(script), "a"],
        capture_output=True,
        text=True,
        env={**os.environ, "THEANORC": str(rc), "TCC_FLAGS": "device=cpu"},
    )
    said = ["1.0 ['a'] __main__ 1.0.5 theano.tensor.nnet.ctc", "float32 FAST_COMPILE None 0.8 True cpu"]
    assert run.stdout.splitlines() == said, run.stderr
    assert "THEANO_FLAGS: unknown flag 'nosuch'" in run.stderr


def test_what_the_command_says_without_a_program(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-m", "tcc.theano"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout.startswith("usage: python -m tcc.theano")
    run = subprocess.run([sys.executable, "-m", "tcc.theano", "nothing.py"], capture_output=True, text=True)
    assert run.returncode == 1 and "no file nothing.py" in run.stderr


def test_another_theano_is_not_pushed_aside(tmp_path: Path) -> None:
    (tmp_path / "theano.py").write_text("")
    text = "import theano, tcc.theano\ntcc.theano.install()"
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1 and "another theano is imported already" in run.stderr


def test_functions_win_over_modules_of_their_name() -> None:
    for name in ("theano.tensor.sort", "theano.tensor.var", "theano.compile.function", "theano.ifelse"):
        importlib.import_module(name)
    theano = importlib.import_module("theano")
    x = theano.tensor.dvector("x")
    assert theano.tensor.sort(x).type == x.type and theano.tensor.var(x).ndim == 0
    assert theano.compile.function is tcc.function and theano.ifelse.ifelse is not None
    assert importlib.import_module("theano.tensor.sort").sort is theano.tensor.sort
