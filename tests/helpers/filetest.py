"""Tests written in the text form: `.tcir` files.

    // passes: canonicalize,dce
    func @f(...) -> (...) { ... }
    // ----
    // func @f(...) -> (...) { ... }

The part behind `// ----` is what the passes must print; `pytest --bless` writes it.  Each function is also run by the
interpreter before and after the passes, on equal inputs.  A file with `// error: words` holds functions between
`// ----` lines that must be rejected with these words, at the line that ends in them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcc.ir import dims
from tcc.ir.core import Func, Op
from tcc.ir.interpret import run as interpret
from tcc.ir.text import ParseError, parse, print_module
from tcc.ir.types import FLOATS, Type, numpy_dtype
from tcc.ir.verify import VerifyError, verify
from tcc.passes import manager
from tcc.passes.pipeline import parse_pipeline

CUT = "// ----\n"
SIZES = (5, 3, 4, 2, 7, 6)


class Mismatch(Exception):
    pass


class FileTest(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        text = self.path.read_text()
        if "// error:" not in text:
            yield Passes.from_parent(self, name=self.path.stem)
            return
        for i, chunk in enumerate(text.split(CUT)):
            words = re.search(r"// error: (.*)", chunk)
            yield Rejection.from_parent(
                self, name=f"{i}: {words[1] if words else 'no // error:'}", chunk=chunk
            )


class Case(pytest.Item):
    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Mismatch):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


class Passes(Case):
    def runtest(self) -> None:
        source, cut, want = self.path.read_text().partition(CUT)
        got = transformed(source, str(self.path))
        if self.config.getoption("--bless"):
            self.path.write_text(source + CUT + got)
        elif got != want:
            lines = difflib.unified_diff(want.splitlines(), got.splitlines(), "expected", "got", lineterm="")
            raise Mismatch("\n".join([*lines, "(pytest --bless accepts the new text)"]))


def transformed(source: str, path: str) -> str:
    """The functions of `source` behind the passes that it names, as comments."""
    header = re.search(r"^// passes:(.*)", source, re.M)
    steps = parse_pipeline(header[1]) if header else []
    module, original = parse(source, path), parse(source, path)
    text = print_module(module)
    assert print_module(parse(text)) == text, "printed again after parsing, the text differs"
    for name, func in module.items():
        manager.run(func, steps, manager.Context(verify=2))
        compare(original[name], func)
    after = print_module(module)
    assert print_module(parse(after)) == after, "printed again after parsing, the text differs"
    return "".join(f"// {line}".rstrip() + "\n" for line in after.splitlines())


def compare(before: Func, after: Func) -> None:
    """Equal results on equal inputs; shared variables end up equal too."""
    if any(op.name == "call" for op in before.body.walk()):
        return
    arrays = inputs(before)
    left, right = [a.copy() for a in arrays], [a.copy() for a in arrays]
    updates: dict[str, int] = before.attrs.get("updates", {})
    names = [p.name for p in before.body.params]
    want, got = list(interpret(before, *left)), list(interpret(after, *right))
    if "outputs" in after.attrs and "outputs" not in before.attrs:
        got_shared = [right[names.index(name)] for name in updates]
        want_shared = [want[i] for i in updates.values()]
        want = [w for i, w in enumerate(want) if i not in updates.values()] + want_shared
        got = [*got, *got_shared]
    assert len(want) == len(got)
    for i, (w, g) in enumerate(zip(want, got)):
        single = w.dtype in (np.float32, np.complex64)
        tolerance = 1e-4 if single else 2e-2 if w.dtype == np.float16 else 1e-9
        np.testing.assert_allclose(
            g, w, rtol=tolerance, atol=tolerance, err_msg=f"result {i} of @{before.name}"
        )


def inputs(func: Func) -> list[np.ndarray[Any, Any]]:
    """Random arguments: floats in (0.1, 1.1), integers 0 and 1, small sizes."""
    names = sorted({n for p in func.body.params for s in p.type.shape for n in dims.names_of(s)})
    sizes = {name: SIZES[i % len(SIZES)] for i, name in enumerate(names)}
    rng = np.random.default_rng(0)
    return [
        draw(rng, p.type.substitute(sizes))
        for p in func.body.params
        if p.type.place is None or p.type.place.space != "output"
    ]


def draw(rng: np.random.Generator, t: Type) -> np.ndarray[Any, Any]:
    shape = tuple(dims.evaluate(s, {}) for s in t.shape)
    low = 0.1 if t.dtype in FLOATS else 0.0
    scale = 1.0 if t.dtype in FLOATS else 2.0
    return np.asarray(rng.random(shape) * scale + low).astype(numpy_dtype(t.dtype))


class Rejection(Case):
    def __init__(self, *, chunk: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunk = chunk

    def runtest(self) -> None:
        words = re.search(r"// error: (.*)", self.chunk)
        assert words, "a part of a rejection test without // error:"
        line = self.chunk.count("\n", 0, words.start()) + 1
        positions: dict[Op, tuple[int, int]] = {}
        try:
            for func in parse(self.chunk, str(self.path), positions=positions).values():
                verify(func)
        except (ParseError, VerifyError) as e:
            if words[1] not in str(e):
                raise Mismatch(f"expected {words[1]!r} in:\n{e}") from None
            where = e.line if isinstance(e, ParseError) else positions[e.op][0] if e.op is not None else 1
            if where != line:
                raise Mismatch(f"reported at line {where}, expected at line {line}:\n{e}") from None
        else:
            raise Mismatch(f"accepted, but should say {words[1]!r}:\n{self.chunk}")
