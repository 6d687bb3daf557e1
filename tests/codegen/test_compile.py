"""Object code of functions: which kernels are compiled once for all."""

import re

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.codegen import compile, jit
from tcc.codegen.entry import entry_text
from tcc.runtime import cache
from tcc.runtime.panels import KeptSpec, Layout
from tcc.runtime.signature import SharedSpec, Signature


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """The texts that LLVM compiles from here on, with an empty cache."""
    texts = []
    compile_object = jit.compile_object

    def noted(text, target, level=2):
        if "@tcc_run_" in text or re.search(r"define \w+ @tcc_map_", text):  # not the pool, nor an engine
            texts.append(text)
        return compile_object(text, target, level)

    monkeypatch.setattr(jit, "compile_object", noted)
    monkeypatch.setattr(compile, "SHARED", 10_000)
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    return texts


def heavy(x):
    """A kernel of many lines."""
    y = x
    for k in range(4):
        y = T.tanh(T.erf(y) + k) * T.sin(y)
    return y


def of_kernels(texts):
    return [t for t in texts if "@tcc_entry_" not in t]


def test_a_long_kernel_is_compiled_once_for_two_functions(compiled):
    a = np.linspace(-1, 1, 7, dtype=np.float32)
    x = T.fvector("x")
    first = tcc.function([x], heavy(x))(a)
    assert len(of_kernels(compiled)) == 1
    second = tcc.function([x], T.sort(heavy(x)))(a)
    assert len(of_kernels(compiled)) == 1 and len(compiled) == 3
    np.testing.assert_array_equal(second, np.sort(first))


def test_a_short_kernel_stays_with_its_function(compiled):
    x = T.fvector("x")
    tcc.function([x], x + 1)(np.ones(3, np.float32))
    assert len(compiled) == 1 and not of_kernels(compiled)


def test_what_all_functions_share_is_in_none_of_them(compiled):
    """What takes any arguments to the entry is a sixth of what a small function takes to compile."""
    x = T.fvector("x")
    tcc.function([x], x + 1)(np.ones(3, np.float32))
    names = re.findall(r"^define [^@]*@(tcc_[a-z]+_)\w+(\.body)?\(", compiled[0], re.MULTILINE)
    assert sorted(names) == [("tcc_entry_", ""), ("tcc_map_", ""), ("tcc_map_", ".body"), ("tcc_run_", "")]


def test_an_entry_is_as_long_for_many_containers_as_for_one():
    def lines(count):
        shared = tuple(SharedSpec("f32", (4, k), written=k % 2 == 0) for k in range(count))
        kept = tuple(KeptSpec(k, Layout("panels", "w", 0, 4, k, 1, 4), 8) for k in range(count))
        return entry_text("f", Signature(shared=shared, kept=kept), "run").count("\n")

    assert lines(1) == lines(100)


def test_updates_of_parameters_of_any_length_are_one_kernel(compiled):
    lengths = (300, 1000, 5001)
    parameters = [tcc.shared(np.linspace(-1, 1, n, dtype=np.float32)) for n in lengths]
    before = [p.get_value() for p in parameters]
    rate = T.fscalar("rate")
    tcc.function([rate], updates=[(p, p - rate * T.sgn(p)) for p in parameters])(0.25)
    assert len(re.findall(r"^define [^@]*@tcc_map_\w+\.body", compiled[0], re.MULTILINE)) == 1
    for p, old in zip(parameters, before):
        np.testing.assert_array_equal(p.get_value(), old - np.float32(0.25) * np.sign(old))


@pytest.mark.parametrize(
    "length, level", [(7, 0), (100_000, 2)], ids=["no loop: LLVM's quick way", "a loop: the whole way"]
)
def test_functions_without_loops_are_compiled_the_quick_way(length, level, monkeypatch, tmp_path):
    levels = []
    compile_object = jit.compile_object
    monkeypatch.setattr(
        jit, "compile_object", lambda *args: levels.append((*args, 2)[2]) or compile_object(*args)
    )
    monkeypatch.setattr(cache, "_default", [cache.Cache(tmp_path)])
    x = T.fvector("x")
    np.testing.assert_array_equal(tcc.function([x], x * 2)(np.ones(length, np.float32)), 2)
    assert levels[-1] == level


def test_a_setting_that_changes_code_is_part_of_the_key_from_then_on(compiled, monkeypatch):
    x = T.vector("x", dtype="float32")
    for skip in ("", "", "cse", "cse", ""):
        monkeypatch.setenv("TCC_SKIP", skip)
        tcc.function([x], x * 2 + 1)(np.ones(3, "float32"))
    assert len([t for t in compiled if "@tcc_run_" in t]) == 2
