"""Settings: code wins over TCC_FLAGS, which wins over ~/.tccrc; and what an import costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tcc


def run(code: str, folder: Path, **environment: str) -> str:
    env = {**os.environ, "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_order(tmp_path):
    show = "import tcc; print(tcc.config.floatX, tcc.config.on_unused_input)"
    assert run(show, tmp_path, TCC_FLAGS="") == "float64 raise\n"
    (tmp_path / ".tccrc").write_text("[global]\nfloatX = float32\non_unused_input = warn\n")
    assert run(show, tmp_path, TCC_FLAGS="") == "float32 warn\n"
    assert run(show, tmp_path, TCC_FLAGS="on_unused_input=ignore") == "float32 ignore\n"
    assert run("import tcc; tcc.config.floatX = 'float16'; print(tcc.config.floatX)", tmp_path) == "float16\n"


def test_a_bad_flag_says_where_it_was_given(tmp_path):
    show = """
import traceback
try:
    import tcc; tcc.config
except ValueError as e:
    print(*traceback.format_exception_only(e))
"""
    (tmp_path / ".tccrc").write_text("[global]\nfloatX = f\n")
    assert f"TCC_FLAGS or {tmp_path}/.tccrc says floatX=f" in run(show, tmp_path, TCC_FLAGS="")


def test_a_home_that_is_closed_has_no_flags(tmp_path):
    code = """
import os, pathlib
stat = pathlib.Path.stat
def closed(self, **how):
    if self.name == ".tccrc":
        raise PermissionError(13, "Permission denied", str(self))
    return stat(self, **how)
pathlib.Path.stat = closed
import tcc; print(tcc.config.floatX)
"""
    assert run(code, tmp_path, TCC_FLAGS="") == "float64\n"


def test_a_user_without_a_home_has_no_flags(tmp_path):
    code = """
import os, pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
del os.environ["HOME"]
import tcc; print(tcc.config.floatX)
"""
    assert run(code, tmp_path, TCC_FLAGS="") == "float64\n"


def test_historic_flags_are_accepted(tmp_path):
    flags = "device=gpu,floatx=float32,lib.cnmem=1,nvcc.fastmath=True,dnn.conv.algo_fwd=time_once,scanOp_pushout_output=1"
    assert (
        run("import tcc; print(tcc.config.floatX, tcc.config.nvcc.fastmath)", tmp_path, TCC_FLAGS=flags)
        == "float64 True\n"
    )


def test_unknown_flags():
    with pytest.raises(AttributeError, match="'TheanoConfigParser' object has no attribute 'nope'"):
        tcc.config.nope  # noqa: B018
    with pytest.raises(AttributeError):
        tcc.config.nope = 1
    with pytest.raises(ValueError):
        tcc.config.on_unused_input = "maybe"


def test_change_flags_is_a_context_and_a_decorator():
    with tcc.change_flags(floatX="float32"):
        assert tcc.config.floatX == "float32"
    assert tcc.config.floatX == "float64"

    @tcc.change_flags(floatX="float16")
    def inside():
        return tcc.config.floatX

    assert inside() == "float16" and tcc.config.floatX == "float64"
    with pytest.raises(ZeroDivisionError):
        with tcc.change_flags(floatX="float32"):
            1 / 0  # noqa: B018
    assert tcc.config.floatX == "float64"
    with pytest.raises(ValueError):
        with tcc.change_flags(on_unused_input="ignore", floatX="float8"):
            pass
    assert tcc.config.on_unused_input == "raise"


def test_config_prints_its_flags():
    text = str(tcc.config)
    assert "floatX (('float64', 'float32', 'float16'))" in text and "Value:  float64" in text


def test_import_loads_neither_llvmlite_nor_pycuda(tmp_path):
    code = """
import sys, tcc
before = {m for m in sys.modules if m.startswith('tcc.')}
import tcc.tensor as T
x, y = T.matrices('x', 'y')
(x + y).eval({x: [[1]], y: [[2]]})
print('llvmlite' in sys.modules, 'pycuda' in sys.modules, sorted(before))
"""
    assert run(code, tmp_path) == "False False []\n"


def test_names_of_the_package():
    for name in tcc.__all__:
        if name != "explain":
            assert getattr(tcc, name) is not None, name
    assert tcc.scan is not None and callable(tcc.scan) and callable(tcc.function) and callable(tcc.grad)
    assert callable(tcc.tensor.nnet.softmax) and callable(tcc.tensor.signal.pool.pool_2d)
    with pytest.raises(AttributeError):
        tcc.nope  # noqa: B018


def test_theanos_groups_within_groups():
    assert tcc.config.dnn.conv.algo_fwd == "small"
    with tcc.change_flags([("dnn.conv.algo_fwd", "time_once")]):
        assert tcc.config.dnn.conv.algo_fwd == "time_once"
    tcc.config.dnn.conv.algo_bwd = "deterministic"
    assert tcc.config.dnn.conv.algo_bwd == "deterministic"
    tcc.config.dnn.conv.algo_bwd = "none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dev0", "contexts are written dev0->cuda0;dev1->cuda1, got 'dev0'"),
        ("dev0->nope", r"no device 'nope' for 'dev0' \(there are cpu, cuda0"),
        ("dev0->cuda0;dev0->cuda1", "'dev0' is both 'cuda0' and 'cuda1'"),
        ("cpu->cuda0", "'cpu' is a device itself, so it cannot name 'cuda0'"),
    ],
)
def test_contexts_that_name_no_device_are_refused(text, message):
    before = tcc.config.contexts
    with pytest.raises(ValueError, match=message):
        tcc.config.contexts = text
    assert tcc.config.contexts == before


def test_contexts_may_name_a_device_as_itself():
    with tcc.change_flags([("contexts", "cuda->cuda0; gpu1->cuda1;")]):
        assert tcc.config.contexts == "cuda->cuda0; gpu1->cuda1;"
