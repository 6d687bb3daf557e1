"""Sizes: one canonical form, exact arithmetic, text that reads back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.ir import dims
from tcc.ir.dims import (
    Expr,
    Size,
    evaluate,
    maximum,
    minimum,
    name,
    names_of,
    nonnegative,
    parse_size,
    substitute,
)

n, m, k = name("n"), name("m"), name("k")
KNOWN = {"n": 7, "m": 4, "k": 0}

Both = tuple[Size, Callable[[dict[str, int]], int]]
BINARY: list[tuple[Callable[[Size, Size], Size], Callable[[int, int], int]]] = [
    (dims.add, lambda a, b: a + b),
    (dims.sub, lambda a, b: a - b),
    (dims.mul, lambda a, b: a * b),
    (dims.floordiv, lambda a, b: a // b if b else 0),
    (dims.mod, lambda a, b: a % b if b else 0),
    (dims.minimum, min),
    (dims.maximum, max),
]


def _grow(parts: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    def join(pair: tuple[Both, Both], choice: int) -> Both:
        (a, f), (b, g) = pair
        symbolic, numeric = BINARY[choice]
        return symbolic(a, b), lambda env: numeric(f(env), g(env))

    return st.builds(join, st.tuples(parts, parts), st.integers(0, len(BINARY) - 1))


def _leaf(which: int | str) -> Both:
    if isinstance(which, int):
        return which, lambda env: which
    return name(which), lambda env: env[which]


LEAVES = st.one_of(st.integers(-5, 9), st.sampled_from(["n", "m", "k"])).map(_leaf)
SIZES = st.recursive(LEAVES, _grow, max_leaves=8)
VALUES = st.fixed_dictionaries({letter: st.integers(0, 12) for letter in "nmk"})


@given(SIZES, VALUES)
def test_text_reads_back_to_the_same_size(pair: Both, env: dict[str, int]) -> None:
    size, _ = pair
    again = parse_size(str(size))
    assert again == size and hash(again) == hash(size)
    assert evaluate(again, env) == evaluate(size, env)


@given(SIZES, st.fixed_dictionaries({letter: st.integers(1, 12) for letter in "nmk"}))
def test_substituting_numbers_gives_the_value(pair: Both, env: dict[str, int]) -> None:
    size, _ = pair
    known: dict[str, Size] = dict(env)
    assert substitute(size, known) == evaluate(size, env)


@given(SIZES, VALUES)
def test_what_is_called_nonnegative_is(pair: Both, env: dict[str, int]) -> None:
    size, _ = pair
    if nonnegative(size):
        assert evaluate(size, env) >= 0


POSITIVE = st.one_of(st.integers(1, 9), st.sampled_from(["n", "m", "k"])).map(_leaf)
POSITIVE_SIZES = st.recursive(
    POSITIVE,
    lambda parts: st.builds(
        lambda pair, i: (BINARY[i][0](pair[0][0], pair[1][0]), _apply(BINARY[i][1], pair)),
        st.tuples(parts, parts),
        st.sampled_from([0, 2, 5, 6]),
    ),
    max_leaves=8,
)


def _apply(f: Callable[[int, int], int], pair: tuple[Both, Both]) -> Callable[[dict[str, int]], int]:
    return lambda env: f(pair[0][1](env), pair[1][1](env))


@given(SIZES, POSITIVE_SIZES, st.integers(0, len(BINARY) - 1))
def test_arithmetic_is_that_of_integers(left: Both, right: Both, choice: int) -> None:
    """With divisors that are positive, as those of sizes are."""
    env = {"n": 7, "m": 4, "k": 3}
    symbolic, numeric = BINARY[choice]
    value = numeric(evaluate(left[0], env), right[1](env))
    assert evaluate(symbolic(left[0], right[0]), env) == value


def test_equal_polynomials_are_one_size() -> None:
    assert n + n == 2 * n
    assert (n + 1) * (n + 1) == n * n + 2 * n + 1
    assert n * m == m * n
    assert n - n == 0
    assert {n + 1 - 1: "n"}[n] == "n"


def test_what_has_the_value_of_a_number_is_a_number() -> None:
    for size in (n - n + 3, (2 * n) // n, (6 * n) % n, minimum(n, n + 2) - n, maximum(3, 5)):
        assert isinstance(size, int)


def test_division_is_exact_where_it_can_be() -> None:
    assert (6 * n * m) // (2 * n) == 3 * m
    assert (n * m + 2 * n) // n == m + 2
    assert str((n + 1) // 2) == "((n+1)//2)"
    assert (4 * n) % 2 == 0
    assert str(n % 2) == "(n%2)"
    assert str(7 // n) == "(7//n)" and str(7 % n) == "(7%n)"


def test_extremes_use_that_sizes_are_not_negative() -> None:
    assert minimum(n, n + m) == n
    assert maximum(0, n) == n
    assert maximum(n, m) == maximum(m, n)
    assert str(minimum(m, n)) == "min(m, n)"


def test_names_and_plain_names() -> None:
    assert names_of(n * 2 + m // 3) == {"n", "m"} and names_of(3) == set()
    assert n.plain == "n"
    assert not any(isinstance(s, Expr) and s.plain for s in (2 * n, n // 2, n + 1))


def test_evaluate_names_what_it_does_not_know() -> None:
    with pytest.raises(KeyError, match="m"):
        evaluate(n + m, {"n": 1})


@pytest.mark.parametrize(
    "text,size",
    [
        ("3", 3),
        ("-2", -2),
        (" n ", n),
        ("2*n+1", 2 * n + 1),
        ("n//2*2", (n // 2) * 2),
        ("n - m - 1", n - m - 1),
        ("(n+1)//(m+1)", (n + 1) // (m + 1)),
        ("max(n-1, 0)", maximum(n - 1, 0)),
        ("min(n, max(m, 3))", minimum(n, maximum(m, 3))),
        ("x.1", name("x.1")),
    ],
)
def test_parse(text: str, size: Size) -> None:
    assert parse_size(text) == size


def test_what_is_cut_off_a_size_again_and_again_stays_short() -> None:
    size: Size = n
    for k in range(1, 5):
        size = dims.sub(size, minimum(size, 1))
        assert str(size) == f"max(n-{k}, 0)"
    assert str(dims.sub(dims.add(n, m), minimum(n, 3))) == "m+max(n-3, 0)"
    assert dims.sub(minimum(n, 3), minimum(n, 3)) == 0


@pytest.mark.parametrize("text", ["", "n+", "n m", "2n", "n/2", "(n", "min(n)", "n**2", "*n"])
def test_parse_says_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_product_of_no_sizes_is_one() -> None:
    assert dims.product([]) == 1
    assert dims.product([n, 2, m]) == 2 * n * m
    assert isinstance(dims.product([n, 0]), int)
