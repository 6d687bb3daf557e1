from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.ir.text import load


def test_tcc_dump_writes_passes_and_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_DUMP", "fuse,placed,asm")
    monkeypatch.setenv("TCC_DUMP_DIR", str(tmp_path))
    x = T.vector("x", dtype="float32")
    tcc.function([x], T.tanh(x) + 1, name="f")(np.zeros(3, np.float32))
    *rest, fuse = sorted((tmp_path / "f").iterdir(), key=lambda p: p.name.endswith("-fuse.tcir"))
    assert sorted(p.name for p in rest) == ["asm.s", "placed.tcir"]
    for path in (fuse, tmp_path / "f" / "placed.tcir"):
        assert any(op.name == "fuse" for op in load(path)["f"].body.walk())


def test_tcc_dump_refuses_what_is_neither_pass_nor_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TCC_DUMP", "fusee")
    x = T.vector("x", dtype="float32")
    with pytest.raises(ValueError, match="TCC_DUMP: fusee is no pass and no stage"):
        tcc.function([x], x + 1)(np.zeros(3, np.float32))


def test_explain_takes_what_function_returns() -> None:
    x = T.vector("x", dtype="float32")
    f = tcc.function([x], x * 2, name="f")
    assert tcc.explain(f).startswith("@f\n  not called yet")
    f(np.zeros(3, np.float32))
    f(np.zeros(4, np.float32))
    assert "2. x_0 changed" in tcc.explain(f)
    with pytest.raises(TypeError, match="explain takes what tcc.function returns, got int"):
        tcc.explain(3)
