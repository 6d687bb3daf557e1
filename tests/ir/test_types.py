"""Types: text that reads back, layouts, promotion, substitution."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tcc.ir.dims import name
from tcc.ir.types import (
    DTYPES,
    FROM_NUMPY,
    Place,
    Type,
    dense_strides,
    itemsize,
    numpy_dtype,
    parse_type,
    promote,
    split_sizes,
)

n, m = name("n"), name("m")


@pytest.mark.parametrize(
    "text",
    [
        "f32[]",
        "bool[n]",
        "i64[n,784]",
        "c128[2*n+1,min(m,n)]",
        "bf16[(n//2),3]",
        "&f32[] @arena",
        "&f32[n,784] @input",
        "&f32[n,784; 1,n] @arena",
        "&u8[n,m; 0,1] @const",
    ],
)
def test_text_reads_back(text: str) -> None:
    t = parse_type(text)
    assert parse_type(str(t)) == t
    assert str(t).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text,words",
    [
        ("f31[n]", "not a type"),
        ("f32", "not a type"),
        ("f32[n", "not a type"),
        ("f32[n+]", "not a size"),
        ("f32[n; 1]", "only a place"),
        ("f32[n] @arena", "only a place"),
        ("&f32[n,m; 1] @arena", "2 sizes but 1 strides"),
    ],
)
def test_text_that_is_no_type(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_type(text)


def test_row_major_strides_are_written_as_none() -> None:
    t = Type("f32", (n, 784))
    assert t.at("arena", (784, 1)) == t.at("arena")
    assert t.at("arena", (1, n)).place == Place((1, n), "arena")
    assert t.at("arena").strides == (784, 1)
    assert dense_strides((2, n, m)) == (n * m, m, 1)


def test_sizes_in_elements_and_bytes() -> None:
    t = Type("f64", (n, 3))
    assert (t.rank, t.size, t.bytes) == (2, 3 * n, 24 * n)
    assert Type("bool").bytes == 1


def test_a_place_knows_its_value() -> None:
    t = Type("i32", (n,))
    assert t.at("shared").value == t
    assert t.value is t


def test_substitution_reaches_the_strides() -> None:
    t = parse_type("&f32[n,m; 1,n] @arena").substitute({"n": 3, "m": n})
    assert t == parse_type("&f32[3,n; 1,3] @arena")


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in ("bf16", "object")])
def test_bytes_and_names_are_numpys(dtype: str) -> None:
    assert numpy_dtype(dtype).itemsize == itemsize(dtype)
    assert FROM_NUMPY[numpy_dtype(dtype).name] == dtype


ARRAYS = [d for d in DTYPES if d not in ("bf16", "object")]


def test_promotion_is_numpys() -> None:
    for a, b in itertools.product(ARRAYS, ARRAYS):
        assert numpy_dtype(promote(a, b)) == np.result_type(numpy_dtype(a), numpy_dtype(b))


def test_bfloat16_promotes_as_the_narrowest_float() -> None:
    assert promote("bf16", "i64") == "bf16"
    assert promote("bf16", "f16") == "f32"
    assert promote("bf16", "f64") == "f64"


def test_sizes_are_cut_at_the_outer_commas() -> None:
    assert split_sizes("n,min(a,b),3") == ["n", "min(a,b)", "3"]
    assert split_sizes("") == []
