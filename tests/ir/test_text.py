from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.ir import dims
from tcc.ir.arrays import digest, read_safetensors, write_safetensors
from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Value
from tcc.ir.text import ParseError, large_constants, load, parse, parse_func, print_func, print_module, save
from tcc.ir.types import DTYPES, Place, Type
from tcc.ir.verify import VerifyError, verify

FILES = sorted(Path(__file__).parent.glob("*.tcir"))


# -- the same graph ----------------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Equal attribute values of equal kinds; nan equals nan, and 0.0 is not -0.0."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return repr(a) == repr(b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def assert_same(a: Func, b: Func) -> None:
    assert a.name == b.name and same(a.attrs, b.attrs)
    partner: dict[Value, Value] = {}
    compare_blocks(a.body, b.body, partner)


def compare_blocks(a: Block, b: Block, partner: dict[Value, Value]) -> None:
    pair(a.params, b.params, partner)
    for x, y in zip(a.ops, b.ops, strict=True):
        assert x.defn is y.defn and x.loc == y.loc
        assert [partner[v] for v in x.operands] == y.operands
        assert same(dict(sorted(x.attrs.items())), dict(sorted(y.attrs.items())))
        for inner, other in zip(x.blocks, y.blocks, strict=True):
            compare_blocks(inner, other, partner)
        pair(x.results, y.results, partner)


def pair(a: list[Value], b: list[Value], partner: dict[Value, Value]) -> None:
    for v, w in zip(a, b, strict=True):
        assert v.type == w.type and v.name == w.name
        partner[v] = w


@pytest.mark.parametrize("path", [p for p in FILES if "rejects" not in p.stem], ids=lambda p: p.stem)
def test_a_parsed_text_gives_the_same_graph_again(path: Path) -> None:
    for func in load(path).values():
        assert_same(func, parse_func(print_func(func)))


# -- attribute values --------------------------------------------------------------------------------------------

words = st.sampled_from(["n", "m", "b.1", "inf", "nan", "true", "min", "complex", "none"])
sizes = st.recursive(
    st.integers(-(2**40), 2**40) | words.map(dims.name),
    lambda inner: st.builds(
        lambda f, a, b: f(a, b),
        st.sampled_from([dims.add, dims.sub, dims.mul, dims.floordiv, dims.mod, dims.minimum, dims.maximum]),
        inner,
        inner,
    ),
    max_leaves=5,
)
shapes = st.lists(sizes, max_size=3).map(tuple)
types = st.builds(Type, st.sampled_from(sorted(DTYPES)), shapes)
places = st.builds(
    lambda t, strided, space: Type(t.dtype, t.shape, Place(t.shape if strided else None, space)),
    types,
    st.booleans(),
    st.sampled_from(["arena", "output"]),
)
scalars = st.none() | st.booleans() | st.floats() | st.complex_numbers() | st.text() | sizes | types | places
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_every_attribute_value_survives_printing_and_parsing(value: Any) -> None:
    func = parse_func("func @f() -> () { yield }")
    func.attrs["x"] = value
    text = print_func(func)
    again = parse_func(text)
    assert same(again.attrs["x"], value), text
    assert print_func(again) == text


@given(st.floats(width=32))
def test_f32_constants_print_the_digits_that_f32_needs(value: float) -> None:
    text = print_func(constant(value, Type("f32", ())))
    again = parse_func(text).body.first
    assert again is not None and same(again.attrs["value"], value)
    if math.isfinite(value):
        assert f"value = {float(str(np.float32(value)))!r}" in text


def constant(value: Any, type: Type) -> Func:
    block = Block()
    b = Builder(block)
    b.op("yield", b.op("const", attrs={"value": value, "type": type}).result)
    return Func("f", block)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i8", "u64", "bool", "c64", "c128"])
@pytest.mark.parametrize("shape", [(3, 4), (0, 2), (2, 1, 1), (64,)])
def test_small_arrays_stand_in_the_text(dtype: str, shape: tuple[int, ...]) -> None:
    kind = np.dtype(str(DTYPES[dtype][0]))
    array = np.random.default_rng(0).standard_normal(shape).astype(kind) * (100 if kind.kind != "b" else True)
    array = array.astype(kind)
    assert_same(
        constant(array, Type(dtype, shape)), parse_func(print_func(constant(array, Type(dtype, shape))))
    )


def test_large_arrays_stand_beside_the_text(tmp_path: Path) -> None:
    array = np.arange(65.0).reshape(5, 13)
    func = constant(array, Type("f64", (5, 13)))
    save(tmp_path / "f.tcir", func)
    assert f"@sha256:{digest(array)}" in (tmp_path / "f.tcir").read_text()
    assert_same(func, load(tmp_path / "f.tcir")["f"])
    assert_same(func, parse_func(print_func(func), constants=large_constants({"f": func})))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".safetensors", ".tcir"]


@pytest.mark.parametrize(
    "spoil", [lambda d: d[:5], lambda d: d[:-1], lambda d: d[:9] + b"x" + d[10:], lambda d: d[:-1] + b"\1"]
)
def test_spoiled_constants_are_reported_where_they_are_named(tmp_path: Path, spoil: Any) -> None:
    array = np.arange(65.0)
    save(tmp_path / "f.tcir", constant(array, Type("f64", (65,))))
    beside = tmp_path / f"{digest(array)}.safetensors"
    beside.write_bytes(spoil(beside.read_bytes()))
    with pytest.raises(ParseError) as e:
        load(tmp_path / "f.tcir")
    assert e.value.line == 2 and str(beside) in e.value.message


def test_safetensors_files_hold_every_dtype_but_objects(tmp_path: Path) -> None:
    kinds = [str(n) for ours, (n, _) in DTYPES.items() if n and ours != "object"]
    arrays = {k: np.ones((2, 3), k) for k in kinds}
    write_safetensors(tmp_path / "a.safetensors", arrays)
    got = read_safetensors(tmp_path / "a.safetensors")
    assert same({k: got[k] for k in arrays}, arrays)
    with pytest.raises(TypeError, match="no dtype object"):
        write_safetensors(tmp_path / "b.safetensors", {"x": np.array([None])})


# -- names -------------------------------------------------------------------------------------------------------


def test_names_are_kept_and_made_unique_within_sight() -> None:
    text = """func @f(%x: f32[]) -> (f32[]) {
  %x_1 = tanh %x : f32[]
  %0 = fuse %x {maps = [""], dims = [], out = [""]} (%u: f32[]) {
    %e = exp %u : f32[]
    yield %e
  } : f32[]
  %e = exp %0 : f32[]
  yield %e
}"""
    func = parse_func(text)
    assert print_func(func) == text
    first = func.body.first
    assert first is not None
    first.result.name = "x"
    assert print_func(func) == text


def test_python_functions_are_printed_as_their_names() -> None:
    func = parse_func(
        'func @f() -> (f32[]) {\n  %0 = call {name = "g", types = [f32[]]} : f32[]\n  yield %0\n}'
    )
    text = print_func(func)
    assert func.body.first is not None
    func.body.first.attrs["function"] = len
    assert print_func(func) == text


# -- errors ------------------------------------------------------------------------------------------------------


def test_an_error_says_where() -> None:
    with pytest.raises(ParseError) as e:
        parse("func @f(%x: f32[]) -> (f32[]) {\n\t%y = tanh %z : f32[]\n  yield %y\n}", "dir/f.tcir")
    error = e.value
    assert (error.path, error.line, error.col, error.message) == (
        "dir/f.tcir",
        2,
        12,
        "%z is not defined here",
    )
    assert str(error) == f"dir/f.tcir:2:12: error: {error.message}\n\t%y = tanh %z : f32[]\n\t          ^"


@pytest.mark.parametrize(
    "text, words",
    [
        (b"func @f\xff() -> () { yield }", "not UTF-8"),
        ("func @f(%x: f32[]) -> () {\n  yield", "expected }, found the end of the text"),
        ("func @f() -> () {\n  yield\n} func", "expected a name like @f, found the end of the text"),
        ("func @f() -> () { call {name = " + "[" * 10_000 + ", types = []} yield }", "nested deeper than 100"),
        ("func @f(%x: f32[" + "(" * 10_000 + "]) -> () {yield}", "nested deeper than 100"),
        ("func @f(%x: f32[" + "-" * 10_000 + "1]) -> () {yield}", "nested deeper than 100"),
        ("func @f() -> () {" + 'ifelse () {' * 10_000, "nested deeper than 100"),
        ("func @f() -> () { call {name = " + "9" * 10_000 + ", types = []} yield }", "too many digits"),
        ("func @f(%x: f32[" + "*".join(f"(a{i}+b{i})" for i in range(40)) + "]) -> () {yield}", "too many terms"),
        ("func @f() -> () { call {name = complex(1), types = []} yield }", "complex takes two numbers"),
        ('func @f() -> () { call {name = "\\q", types = []} yield }', "cannot read the string"),
        ("§", "unexpected character '§'"),
    ],
)  # fmt: skip
def test_malformed_texts_are_parse_errors(text: str | bytes, words: str) -> None:
    with pytest.raises(ParseError) as e:
        parse(text)
    assert words in e.value.message


def mutated(text: str, rng: random.Random) -> str:
    """`text` with some of its pieces dropped, doubled, swapped, or replaced by pieces that mean something."""
    pieces = [
        "%",
        "@",
        '"',
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "->",
        "//",
        "=",
        ":",
        ",",
        ";",
        "-",
        "9" * 30,
        "inf",
        "f32[",
        "\0",
        "é",
    ]
    for _ in range(rng.randint(1, 4)):
        i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        j = min(j, i + rng.choice([1, 2, 5, 40]))
        text = rng.choice(
            [
                lambda: text[:i] + text[j:],
                lambda: text[:j] + text[i:],
                lambda: text[:i] + rng.choice(pieces) + text[j:],
                lambda: text[:i] + rng.choice(pieces) + text[i:],
                lambda: text[:i] + rng.choice(text.split() or [""]) + text[i:],
            ]
        )()
    return text


@pytest.mark.parametrize("seed", range(4))
def test_no_text_raises_anything_but_parse_and_verify_errors(seed: int) -> None:
    rng = random.Random(seed)
    texts = [c for p in FILES for c in p.read_text().split("// ----\n") if not c.startswith("// func")]
    accepted = 0
    for _ in range(500):
        text = mutated(rng.choice(texts), rng)
        try:
            module = parse(text)
            again = print_module(module)
            assert print_module(parse(again)) == again
            for func in module.values():
                verify(func)
            accepted += 1
        except (ParseError, VerifyError):
            continue
    assert 0 < accepted < 500
