"""What register tiles do between branches, as instructions and as LLVM text: the same bits, whatever LLVM's level."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tcc.codegen import jit, target
from tcc.codegen.assembly import Assembly, Reads, Registers, add_steps
from tcc.codegen.emit import Emit, VecType
from tcc.codegen.target import KNOWN, cross, host
from tcc.codegen.vectors import load, store

pytestmark = pytest.mark.skipif(not host().avx2, reason="runs instructions of AVX2")
YMM = host()._replace(vector_bits=256, avx512=False)


def tile(kind: type[Registers], t: VecType, level: int) -> jit.Image:
    """`void @tile(a, b, c)`: c[4, 3 vectors] after five steps of a's elements times b's vectors: all registers are taken."""
    e = Emit()
    e.function("void @tile(ptr %a, ptr %b, ptr %c)")
    reads = Reads(
        tuple((0, i * t.bytes) for i in range(4)), tuple((1, j * t.lanes * t.bytes) for j in range(3))
    )
    places = [e.gep("%c", i * t.lanes, t.elem) for i in range(12)]
    r = kind(e, t, ["%a", "%b"], [load(e, t, p) for p in places], 4)
    apart = [(k * 4 * t.bytes, (k * 3 * t.lanes - 1) * t.bytes) for k in range(5)]
    for value, place in zip(add_steps(r, [reads.moved(step) for step in apart]), places, strict=True):
        store(e, t, value, place)
    e.end()
    text = "\n".join([*e.declared, e.text()])
    return jit.Image.load([jit.compile_object(text, YMM, level)])


@pytest.mark.parametrize("elem", ["float", "double"])
def test_both_ways_give_the_same_bits(elem: str) -> None:
    t = YMM.vector(elem)
    rng = np.random.default_rng(5)
    dtype = {"float": np.float32, "double": np.float64}[elem]
    a, b, c = (rng.standard_normal(n).astype(dtype) for n in (20, 1 + 15 * t.lanes, 12 * t.lanes))
    found = []
    for kind, level in ((Registers, 2), (Assembly, 2), (Assembly, 0)):
        image, made = tile(kind, t, level), c.copy()
        addresses = [x.ctypes.data for x in (a, b[1:], made)]
        jit.function(image.address("tile"), None, *[ctypes.c_void_p] * 3)(*addresses)
        found.append(made)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    wide = c.astype(np.float64).reshape(4, 3 * t.lanes).copy()
    for k in range(5):
        begin = k * 3 * t.lanes
        wide += np.outer(a[4 * k : 4 * k + 4], b[begin : begin + 3 * t.lanes].astype(np.float64))
    np.testing.assert_allclose(found[0].reshape(4, -1), wide, rtol=1e-5, atol=1e-5)


def test_what_is_masked_or_not_known_is_text() -> None:
    reads = Reads(((0, 0),), ((1, 0),))
    assert reads.assembled(YMM)
    assert not reads.assembled(YMM._replace(f16c=False))
    assert not Reads(((0, "%n"),), ((1, 0),)).assembled(YMM)
    assert not Reads(((0, 0),), ((1, 0),), ("%mask",)).assembled(YMM)


def test_instructions_are_for_machines_of_this_kind_that_are_known_to_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LLVM reads them for no other kind, and ends the process where a CPU has them not."""
    v3 = cross("x86_64-linux-gnu", "x86-64-v3")
    assert v3.assembles and cross("x86_64-linux-gnu", features="+avx2,+fma,+f16c").assembles
    assert not cross("x86_64-linux-gnu", "ivybridge").assembles
    arm = next(t for t in KNOWN if t.triple.startswith("aarch64"))
    monkeypatch.setattr(target, "host", lambda: arm)
    assert not v3._replace(l2_bytes=1).assembles
