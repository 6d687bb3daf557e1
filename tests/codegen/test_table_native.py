"""Every row of the op table as native code, against its meaning in NumPy: this machine's vectors and the plain ones,
known and run-time sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from quick import native, quick_code
from tabled import CHUNKS, OTHERS, column, elementwise, mistakes, other, what

from tcc.codegen.coverage import require_native
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.optable import OpDef
from tcc.ir.text import parse_func
from tcc.tools.compare import compile_native, disagreement, run_native, same_bits

TARGETS = {
    "host": {},
    "v3": {"TCC_TARGET": "x86-64-v3"},
    "v2": {"TCC_TARGET": "x86-64-v2"},
    "plain256": {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "256"},
    "plain128": {"TCC_TARGET": "plain", "TCC_VECTOR_BITS": "128"},
}
KNOWN = 37  # some vectors and a ragged end
LENGTHS = (0, 1, 3, 16, KNOWN, 150)


PARAMS = [pytest.param(name, marks=pytest.mark.long) if name == "plain256" else name for name in TARGETS]


@pytest.fixture(autouse=True, params=PARAMS)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in TARGETS[request.param].items():
        monkeypatch.setenv(name, value)
    # multiply-adds of two parts are long: LLVM's whole way with them takes a third of the time of all targets
    with quick_code(request.param == "v2"):
        yield request.param


@pytest.mark.slow
@pytest.mark.parametrize("rows", CHUNKS, ids=lambda rows: rows[0].name)
def test_elementwise_rows(rows: list[OpDef], target: str) -> None:
    """One compilation for all lengths, and one for a known length, whose bits are the same: loops and masks are where these
    differ, which are the same in the long text of v2."""
    func, columns = elementwise(rows)
    function, program = compile_native(func, {}, exact=False)
    for n in LENGTHS:
        args = [column(*c, n) for c in columns]
        made = function(*(in_memory(x, p.type.dtype) for x, p in zip(args, func.body.params)))
        got = [as_numbers(x, v.type.dtype) for x, v in zip(made, func.body.yields)]
        assert list(mistakes(func, args, got)) == []
        if n == KNOWN and target != "v2":
            with quick_code():
                exact = run_native(func, args)
            differ = [what(func, i) for i, (a, b) in enumerate(zip(exact, got)) if not same_bits(a, b)]
            assert differ == [], "depend on what is known"
    assert len(program.history) == 1


# -- all others, on their samples ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(OTHERS), 24))
def test_other_rows(start: int) -> None:
    func, args, _ = other(OTHERS[start : start + 24])
    assert disagreement(func, args, native) == ""


def test_what_has_no_native_code_is_refused() -> None:
    text = """func @f(%x: object[]) -> (f32[]) {
      %y = call %x {name = "f", types = [f32[]]} : f32[]
      yield %y
    }"""
    func = parse_func(text)
    op = func.body.first
    assert op is not None
    op.loc = "model.py:14"
    with pytest.raises(TypeError, match="(?s)call.*no native code for object.*model.py:14"):
        require_native(func)
