"""Text of which nobody knows who wrote it: what it may not contain, and the checks that it gets when they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.exporting import from_module
from tcc.ir.clone import clone
from tcc.ir.core import Func
from tcc.ir.text import parse, parse_func, print_func
from tcc.ir.verify import VerifyError, verify
from tcc.passes.distrust import distrust
from tcc.runtime import bundle
from tcc.runtime.bundle import BundleError

F = np.float32
X, I = np.arange(12, dtype=F).reshape(4, 3), np.arange(4)


def loaded(text: str, folder: Path) -> Any:
    """The function of a bundle, compiled."""
    model = from_module(parse(text), "m")
    bundle.write(folder / "m.tcb", model.manifest(), model.members())
    return tcc.load(folder / "m.tcb")


HOSTILE = {
    "a window that begins behind the array": (
        """func @f(%x: f32[n], %y: f32[m]) -> (f32[m]) {
  %r = slice %x {start = (5*n,), size = (m,), step = (1,)} : f32[m]
  yield %r
}""",
        (np.ones(4, F), np.ones(3, F)),
    ),
    "a window that is longer than the array": (
        """func @f(%x: f32[n], %y: f32[m]) -> (f32[m]) {
  %r = slice %x {start = (0,), size = (m,), step = (1,)} : f32[m]
  yield %r
}""",
        (np.ones(4, F), np.ones(5, F)),
    ),
    "a window that walks out at the front": (
        """func @f(%x: f32[n], %y: f32[m]) -> (f32[m]) {
  %r = slice %x {start = (0,), size = (m,), step = (-1,)} : f32[m]
  yield %r
}""",
        (np.ones(4, F), np.ones(2, F)),
    ),
    "a window that is written behind the array": (
        """func @f(%x: f32[n], %y: f32[m]) -> (f32[n]) {
  %r = insert %x, %y {start = (n-1,), size = (m,), step = (1,)} : f32[n]
  yield %r
}""",
        (np.ones(4, F), np.ones(5, F)),
    ),
    "a size below zero": (
        """func @f(%x: f32[n]) -> (i64[n-9]) {
  %r = iota {shape = [n-9]} : i64[n-9]
  yield %r
}""",
        (np.ones(4, F),),
    ),
    "indices that nobody checked": (
        """func @f(%x: f32[n,3], %i: i64[k]) -> (f32[k,3]) {
  %r = gather %x, %i {axes = [0]} : f32[k,3]
  yield %r
}""",
        (X, np.array([0, 1 << 40])),
    ),
    "indices that were checked against another bound": (
        """func @f(%x: f32[n,3], %i: i64[k]) -> (f32[k,3]) {
  check_index %i {bound = 100*n}
  %r = gather %x, %i {axes = [0]} : f32[k,3]
  yield %r
}""",
        (X, np.array([0, 300])),
    ),
    "indices that are checked in one branch and used behind it": (
        """func @f(%x: f32[n,3], %i: i64[k], %c: bool[]) -> (f32[k,3]) {
  %b = ifelse %c () {
    check_index %i {bound = n}
    yield %c
  } () {
    yield %c
  } : bool[]
  %r = gather %x, %i {axes = [0]} : f32[k,3]
  yield %r
}""",
        (X, np.array([0, 1 << 40]), np.array(False)),
    ),
    "places to add to that nobody checked": (
        """func @f(%x: f32[n,3], %i: i64[k]) -> (f32[n,3]) {
  %v = const {value = 1.0, type = f32[k,3]} : f32[k,3]
  %r = scatter %x, %v, %i {axes = [0], mode = "add"} : f32[n,3]
  yield %r
}""",
        (X, np.array([0, -(1 << 40)])),
    ),
    "sizes that are only said to be equal": (
        """func @f(%x: f32[n], %y: f32[m]) -> (f32[m]) {
  %z = refine %x {type = f32[m]} : f32[m]
  %r = add %z, %y : f32[m]
  yield %r
}""",
        (np.ones(2, F), np.ones(50, F)),
    ),
    "another number of elements under another shape": (
        """func @f(%x: f32[n,m], %y: f32[k,l]) -> (f32[k,l]) {
  %z = reshape %x {shape = (k, l)} : f32[k,l]
  %r = add %z, %y : f32[k,l]
  yield %r
}""",
        (np.ones((2, 3), F), np.ones((5, 7), F)),
    ),
    "more positions than were counted": (
        """func @f(%c: bool[n], %k: i64[]) -> (i64[p]) {
  bind %k {size = p}
  %r = positions %c {count = p} : i64[p]
  yield %r
}""",
        (np.ones(1000, bool), np.array(3)),
    ),
    "more of the largest than there are": (
        """func @f(%x: f32[n], %y: f32[k]) -> (i64[k]) {
  %r = argtopk %x {axis = 0, k = k} : i64[k]
  yield %r
}""",
        (np.ones(3, F), np.ones(900, F)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("text, arguments", HOSTILE.values(), ids=HOSTILE)
def test_what_types_leave_open_is_checked(tmp_path: Path, text: str, arguments: Any) -> None:
    function = loaded(text, tmp_path)
    for _ in range(2):  # with the sizes put in, and left to run time
        with pytest.raises((ValueError, IndexError)):
            function(*arguments)
        arguments = tuple(np.concatenate([a, a]) if a.ndim else a for a in arguments)


@pytest.mark.parametrize(
    "line, name",
    [
        ("%a = alloc {type = &f32[4] @arena} : &f32[4] @arena", "alloc"),
        ("%a = copy %x : f32[4]", "copy"),
        ('%a = call %x {name = "os.system", types = [f32[4]]} : f32[4]', "call"),
        ("%a = fuse %x {maps = ((0,),), dims = (4,), out = ((0,),)} (%e: f32[]) {\n    %f = neg %e : f32[]\n    yield %f\n  } : f32[4]", "fuse"),
    ],
)  # fmt: skip
def test_what_only_passes_make_is_refused(tmp_path: Path, line: str, name: str) -> None:
    text = f"func @f(%x: f32[4]) -> (f32[4]) {{\n  {line}\n  yield %x\n}}"
    func = parse_func(text)
    with pytest.raises(
        VerifyError, match=f"{name}.*is not of the values' level, and only passes may make it"
    ):
        distrust(func)


def test_a_bundle_of_later_levels_is_refused(tmp_path: Path) -> None:
    text = "func @f(%x: f32[4]) -> (f32[4]) {\n  %a = copy %x : f32[4]\n  yield %a\n}"
    with pytest.raises(BundleError, match="m.tcb: model.tcir: copy in @f: is not of the values' level"):
        loaded(text, tmp_path)


def functions() -> list[Func]:
    x, v, i = T.matrix("x", dtype="float32"), T.dvector("v"), T.lvector("i")
    total, _ = tcc.scan(lambda a, b: a + b, sequences=v, outputs_info=T.constant(0.0, dtype="float64"))
    graphs = [
        ([x], x[1:-1, ::2]),
        ([x], x[::-1]),
        ([x, i], x[i]),
        ([v], v[v > 0]),
        ([v], total[-1]),
        ([x], T.sum(x[-3:])),
    ]
    return [tcc.function(inputs, out, mode="FAST_COMPILE").func for inputs, out in graphs]


@pytest.mark.parametrize("number", range(6))
def test_what_the_frontend_writes_goes_on_as_before(tmp_path: Path, number: int) -> None:
    func = functions()[number]
    model = from_module({"f": func}, "m")
    bundle.write(tmp_path / "m.tcb", model.manifest(), model.members())
    names = [p.name for p in func.body.params]
    values = {"x": X, "v": np.array([1.0, -2.0, 3.0]), "i": np.array([2, -1])}
    given = [values[n] for n in names]
    got, want = tcc.load(tmp_path / "m.tcb")(*given), tcc.load(tmp_path / "m.tcb", interpret=True)(*given)
    np.testing.assert_allclose(got[0], want[0])


def test_checks_that_are_there_are_not_repeated() -> None:
    func = functions()[2]
    before = print_func(func)
    copy = clone(func)
    distrust(copy)
    verify(copy)
    assert print_func(copy) == before
