"""Every row of the op table, tried on its samples against NumPy, against differences, and through the text form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tabled import in_float64

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op
from tcc.ir.interpret import run
from tcc.ir.ops import complexes, elementwise, special
from tcc.ir.ops.random import philox
from tcc.ir.optable import TABLE, OpDef, Sample, Undefined, complete_attrs
from tcc.ir.samples import draw, draw_array, sample_types
from tcc.ir.text import parse_func, print_func
from tcc.ir.types import FLOATS, Type, numpy_dtype
from tcc.ir.verify import verify

# Rows without an instance: they need blocks, places, a name for a size, a whole state, or indices that go with each other.
STRUCTURE = {
    "yield",
    "scan",
    "ifelse",
    "call",
    "fuse",
    "for",
    "bind",
    "alloc",
    "place",
    "view",
    "legacy_draw",
    "csr_dot",
    "csr_tdot",
    "csr_sample",
    "csr_rows",
    "csr_order",
}
# Rows that no kernel computes: constants and sizes are read where they are used, memory is laid out by the plan.
NOT_COMPUTED = {"const", "size", "iota", "yield", "bind", "alloc", "place"}
# Rows of complex numbers alone, which become rows of their parts.
COMPLEX_ROWS = {"conj", "angle", "modulus"}
# Rows from floats to floats that have no gradient, and why: the first three are what Theano has none of either.
NO_GRADIENT = {
    "matmul_widening": "made after differentiation",
    "cholesky_factor": "made after differentiation",
    "lu_pivots": "made after differentiation",
    "lu_solve": "made after differentiation",
    "triangular_solve": "made after differentiation",
    "trigamma": "needs the tetragamma function",
    "gammainc_by_k": "needs the second derivative by k",
    "ctc_slope": "needs the second derivative of ctc",
    "legacy_draw": "Theano has none through raw random numbers",
    "scan": "the frontend writes the reverse loop",
    "ifelse": "the frontend writes a second ifelse",
    "csr_rows": "gives integers",
    "csr_order": "gives integers",
    "fuse": "made after differentiation",
    "view": "made after differentiation",
    "panels": "made after differentiation",
}

CASES = [(d, s) for d in TABLE.values() for s in d.samples]


def over(cases: list[tuple[OpDef, Sample]]) -> pytest.MarkDecorator:
    """Parametrises a test by rows and samples."""
    ids = [f"{d.name}({','.join(s.types)})" for d, s in cases]
    return pytest.mark.parametrize("row,sample", cases, ids=ids)


def graph(row: OpDef, sample: Sample) -> tuple[Func, Builder, Op]:
    """A function of the sample's operands that holds the row, and has no yield yet."""
    block = Block(sample_types(sample), [f"x{i}" for i in range(len(sample.types))])
    b = Builder(block)
    return Func("f", block), b, b.op(row.name, *block.params, attrs=sample.attrs)


def only(row: OpDef, sample: Sample) -> Func:
    """A function that is the row."""
    func, b, op = graph(row, sample)
    b.op("yield", *op.results)
    return func


def operands(row: OpDef, sample: Sample) -> list[Any]:
    return draw(sample, np.random.default_rng(len(row.name)))


# -- meaning ---------------------------------------------------------------------------------------------------------


@over(CASES)
def test_numpys_type_is_the_inferred_one(row: OpDef, sample: Sample) -> None:
    attrs = complete_attrs(row, sample.attrs)
    types = row.infer(sample_types(sample), attrs, [])
    assert row.ref is not None
    with np.errstate(all="ignore"):
        result = row.ref(*operands(row, sample), **attrs)
    got = list(result) if isinstance(result, tuple) else [result]
    assert [(np.asarray(r).dtype, np.shape(r)) for r in got] == [
        (numpy_dtype(t.dtype), t.shape) for t in types
    ]


@over(CASES)
def test_text_reads_back_to_the_same_verified_function(row: OpDef, sample: Sample) -> None:
    text = print_func(only(row, sample))
    again = parse_func(text)
    verify(again)
    assert print_func(again) == text


# The expression language of scalar bodies in NumPy
FUNCTIONS: dict[str, Any] = {
    **{f: getattr(special, f) for f in "erf erfc erfinv gamma gammaln psi trigamma".split()},
    **{
        f: getattr(np, f)
        for f in "abs sign where floor ceil trunc rint sqrt isnan isinf real imag copysign".split()
    },
    **{f: getattr(np, f) for f in "exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh".split()},
    **{f"a{f}": getattr(np, f"arc{f}") for f in "sin cos tan sinh cosh tanh tan2".split()},
    "min": np.minimum,
    "max": np.maximum,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "pow": elementwise.power,
    "philox": philox,
    "complex": complexes.complex_of,
    "sigmoid": elementwise.sigmoid,
    "softplus": lambda a: np.log1p(np.exp(-np.abs(a))) + np.maximum(a, 0),
}


@over([(d, s) for d, s in CASES if d.scalar])
def test_scalar_body_means_the_same(row: OpDef, sample: Sample) -> None:
    args = operands(row, sample)
    func = only(row, sample)
    (wanted,) = run(func, *args)
    names: dict[str, Any] = {"cast": lambda a: np.asarray(a).astype(wanted.dtype)}
    with np.errstate(all="ignore"):
        got = eval(row.scalar, {**FUNCTIONS, **names}, dict(zip(row.operand_names, args)))
    assert np.asarray(got).dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@over([(d, s) for d, s in CASES if d.expand])
def test_expansion_means_the_same(row: OpDef, sample: Sample) -> None:
    func, b, op = graph(row, sample)
    assert row.expand is not None
    b.op("yield", *op.results, *row.expand(b, op))
    verify(func)
    whole, expanded = run(func, *operands(row, sample))
    assert expanded.dtype == whole.dtype
    np.testing.assert_allclose(expanded, whole, rtol=1e-5 if whole.dtype == np.float32 else 1e-13)


# complex products differ in the last bit, by which of two products is rounded first
@over([(d, s) for d, s in CASES if d.commutes and "c128" not in s.types[0]])
def test_operands_commute(row: OpDef, sample: Sample) -> None:
    first, second = operands(row, sample)
    func = only(row, sample)
    np.testing.assert_array_equal(run(func, first, second), run(func, second, first))


def pairs_of(x: Any) -> Any:
    return (
        np.stack([np.ravel(np.real(x)), np.ravel(np.imag(x))]).ravel() if np.iscomplexobj(x) else np.ravel(x)
    )


@over([(d, s) for d, s in CASES if d.view is not None])
def test_a_view_has_the_elements_of_its_operand(row: OpDef, sample: Sample) -> None:
    args = operands(row, sample)
    (result,) = run(only(row, sample), *args)
    seen = {"pairs": pairs_of, "of_pairs": pairs_of}.get(
        row.name, np.ravel
    )  # by the parts of complex numbers
    assert set(seen(result)) <= set(seen(args[row.view or 0]))


# -- derivatives -----------------------------------------------------------------------------------------------------


def differentiable(row: OpDef, sample: Sample) -> bool:
    types = sample_types(sample)
    result = row.infer(types, complete_attrs(row, sample.attrs), [])
    return bool(result) and result[0].dtype in FLOATS and any(t.dtype in FLOATS for t in types)


def differences(func: Func, args: list[Any], direction: list[Any], result: int = 0) -> Any:
    """The derivative of one of the function's results along `direction`, by central differences."""
    step = 1e-6
    ahead = [a + step * d if a.dtype.kind == "f" else a for a, d in zip(args, direction)]
    behind = [a - step * d if a.dtype.kind == "f" else a for a, d in zip(args, direction)]
    return (run(func, *ahead)[result] - run(func, *behind)[result]) / (2 * step)


@over([(d, in_float64(s)) for d, s in CASES if d.grad and differentiable(d, in_float64(s))])
def test_gradient_is_what_differences_say(row: OpDef, sample: Sample) -> None:
    assert row.grad is not None
    args = operands(row, sample)
    func, b, op = graph(row, sample)
    rng = np.random.default_rng(1)
    weights = [draw_array(r.type, rng, 0.5, 1.5) for r in op.results]
    gradients = row.grad(b, op, [b.const(w, r.type) for w, r in zip(weights, op.results)])
    assert len(gradients) == len(op.operands)
    b.op("yield", *(g for g in gradients if g is not None and not isinstance(g, Undefined)))
    verify(func)
    results = iter(run(func, *args))
    forward = only(row, sample)
    for i, g in enumerate(gradients):
        if isinstance(g, Undefined):
            continue
        if args[i].dtype.kind != "f":
            assert g is None or not np.any(next(results))
            continue
        got = np.zeros_like(args[i]) if g is None else next(results)
        assert got.shape == args[i].shape and got.dtype == np.float64
        for at in np.ndindex(got.shape):
            direction = [np.zeros(a.shape) for a in args]
            direction[i][at] = 1
            wanted = sum(np.sum(w * differences(forward, args, direction, k)) for k, w in enumerate(weights))
            np.testing.assert_allclose(got[at], wanted, rtol=2e-6, atol=2e-7, err_msg=f"operand {i} at {at}")


@over([(d, in_float64(s)) for d, s in CASES if d.rop and differentiable(d, in_float64(s))])
def test_directional_derivative_is_what_differences_say(row: OpDef, sample: Sample) -> None:
    assert row.rop is not None
    args = operands(row, sample)
    rng = np.random.default_rng(2)
    along = [rng.uniform(-1, 1, a.shape) for a in args]
    func, b, op = graph(row, sample)
    tangents = [
        b.const(d, v.type) if v.type.dtype in FLOATS else None
        for d, v in zip(along, op.operands, strict=True)
    ]
    (moved,) = row.rop(b, op, tangents)
    b.op("yield", moved)
    verify(func)
    (got,) = run(func, *args)
    np.testing.assert_allclose(got, differences(only(row, sample), args, along), rtol=2e-6, atol=2e-7)


@over([(d, s) for d, s in CASES if d.rop])
def test_without_a_direction_there_is_no_directional_derivative(row: OpDef, sample: Sample) -> None:
    assert row.rop is not None
    _, b, op = graph(row, sample)
    assert row.rop(b, op, [None] * len(op.operands)) == [None]


STEPS = ["eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "argmax", "argmin", "argsort"]


@over([(TABLE[n], s) for n in STEPS for s in TABLE[n].samples if sample_types(s)[0].dtype in FLOATS])
def test_what_moves_in_steps_has_gradient_zero(row: OpDef, sample: Sample) -> None:
    assert row.grad is not None
    func, b, op = graph(row, sample)
    gradients = row.grad(b, op, [b.full(1, op.result)])
    b.op("yield", *gradients)
    for x, g in zip(op.operands, run(func, *operands(row, sample)), strict=True):
        assert g.shape == x.type.shape and not g.any()


def gradient(name: str, *args: Any, by: int = 0, **attrs: Any) -> Any:
    """The gradient of the row's summed results by one operand, at one point."""
    arrays = [np.asarray(a) for a in args]
    dtypes = {"f": "f64", "i": "i64", "b": "bool"}
    types = tuple(str(Type(dtypes[a.dtype.kind], a.shape)) for a in arrays)
    func, b, op = graph(TABLE[name], Sample(types, attrs))
    assert op.defn.grad is not None
    b.op("yield", op.defn.grad(b, op, [b.full(1, op.result)])[by])
    (result,) = run(func, *arrays)
    return result.tolist()


def test_gradients_at_kinks_are_theanos() -> None:
    assert gradient("abs", [-2.0, 0.0, 3.0]) == [-1, 0, 1]
    assert gradient("maximum", [1.0, 2.0], [1.0, 3.0]) == [1, 0]
    assert gradient("maximum", [1.0, 2.0], [1.0, 3.0], by=1) == [0, 1]
    assert gradient("minimum", [1.0, 2.0], [1.0, 3.0]) == [1, 1]
    assert gradient("max", [1.0, 2.0, 2.0], axes=(0,)) == [0, 1, 1]
    assert gradient("min", [1.0, 1.0, 2.0], axes=(0,)) == [1, 1, 0]
    low, high = [0.0] * 4, [1.0] * 4
    assert gradient("clip", [-0.5, 0.0, 1.0, 1.5], low, high) == [0, 1, 1, 0]
    assert gradient("clip", [-0.5, 0.0, 1.0, 1.5], low, high, by=1) == [1, 0, 0, 0]
    assert gradient("clip", [-0.5, 0.0, 1.0, 1.5], low, high, by=2) == [0, 0, 0, 1]
    assert [gradient("clip", [0.5], [2.0], [1.0], by=i) for i in range(3)] == [[0], [1], [0]]
    assert [gradient("clip", [2.5], [2.0], [1.0], by=i) for i in range(3)] == [[0], [0], [1]]
    assert gradient("sqrt", [0.0]) == [np.inf]
    assert gradient("mod", [5.0], [3.0]) == [1]
    assert gradient("mod", [5.0], [3.0], by=1) == [-1]
    assert gradient("where", [True, False], [1.0, 2.0], [3.0, 4.0], by=1) == [1, 0]
    assert gradient("where", [True, False], [1.0, 2.0], [3.0, 4.0]) == [0, 0]


def test_gradient_of_a_product_is_exact_with_zeros() -> None:
    assert gradient("prod", [0.0, 2.0, 3.0], axes=(0,)) == [6, 0, 0]
    assert gradient("prod", [0.0, 2.0, 0.0], axes=(0,)) == [0, 0, 0]
    assert gradient("prod", [[1.0, 2.0], [0.0, 3.0]], axes=(1,)) == [[2, 1], [3, 0]]


def test_gradient_of_a_power_by_its_exponent_is_zero_at_zero() -> None:
    assert gradient("pow", [0.0, 1.0], [2.0, 3.0], by=1) == [0, 0]
    assert gradient("pow", [0.0], [2.0]) == [0]


def test_gradient_stops_at_an_integer() -> None:
    assert gradient("cast", [0.5, 1.5], dtype="i64") == [0, 0]
    assert gradient("cast", [0.5, 1.5], dtype="f32") == [1, 1]


def test_repeated_indices_accumulate_their_gradients() -> None:
    assert gradient("gather", [1.0, 2.0, 3.0], [0, 0, -1], axes=(0,)) == [2, 0, 1]


def test_labels_count_from_the_end_in_the_gradient_too() -> None:
    logits = [[0.0, 0.0]]
    assert gradient("xent", logits, [-1]) == gradient("xent", logits, [1]) == [[0.5, -0.5]]


# -- edges of the meaning --------------------------------------------------------------------------------------------


def value(name: str, *args: Any, **attrs: Any) -> Any:
    row = TABLE[name]
    assert row.ref is not None
    with np.errstate(all="ignore"):
        return np.asarray(row.ref(*map(np.asarray, args), **complete_attrs(row, attrs))).tolist()


def test_extremes_of_nothing_and_of_nan() -> None:
    assert value("max", np.zeros((0, 2)), axes=(0,)) == [-np.inf, -np.inf]
    assert value("min", np.zeros(0, np.int8), axes=(0,)) == 127
    assert np.isnan(value("max", [1.0, np.nan], axes=(0,)))
    assert value("argmax", [1.0, np.nan, 2.0], axis=0) == 1
    assert value("argmax", np.zeros((0, 2)), axis=0) == [0, 0]


def test_halves_round_to_even_or_away() -> None:
    halves = [-2.5, -0.5, 0.5, 1.5, 2.5]
    assert value("rint", halves) == [-2, 0, 0, 2, 2]
    assert value("round_half_away", halves) == [-3, -1, 1, 2, 3]
    assert value("round_half_away", [np.nextafter(0.5, 0)]) == [0]


def test_integers_divide_by_zero_and_take_negative_powers() -> None:
    assert value("floordiv", [7, -7, 5], [0, 2, -3]) == [0, -4, -2]
    assert value("mod", [7, -7, 5], [0, 2, -3]) == [0, 1, -1]
    assert value("pow", [2, -1, -1, 1, 0], [-1, -3, -2, -5, -1]) == [0, -1, 1, 1, 0]
    assert value("shl", [1, 1], [3, 64]) == [8, 0]
    assert value("shr", [-8, -8], [1, 64]) == [-4, -1]


def test_softmax_and_its_kin_do_not_overflow() -> None:
    assert value("softmax", [1000.0, 0.0]) == [1, 0]
    assert value("log_softmax", [1000.0, 0.0]) == [0, -1000]
    assert value("logsumexp", [-np.inf, -np.inf], axes=(0,)) == -np.inf
    assert value("logsumexp", [1000.0, 1000.0], axes=(0,)) == 1000 + np.log(2)
    assert value("sigmoid", [-1000.0, 1000.0]) == [0, 1]
    assert value("softplus", [-1000.0, 1000.0]) == [0, 1000]


def test_floats_are_added_up_in_float64() -> None:
    ones = np.full(1 << 25, 1, np.float32)
    ones[0] = 2**25
    assert value("sum", ones, axes=(0,)) == 2**26


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv", "gamma", "gammaln", "psi", "trigamma"])
def test_special_functions_are_scipys(name: str) -> None:
    special = pytest.importorskip("scipy.special")
    theirs = getattr(special, name, lambda x: special.polygamma(1, x))
    x = np.linspace(-0.999, 0.999, 401) if name == "erfinv" else np.linspace(-5.9, 8, 402)
    x = np.append(x, [1e-12, 0.3, 1 - 1e-12] if name == "erfinv" else [1e-12, 25.5, 100.0])
    np.testing.assert_allclose(value(name, x), theirs(x), rtol=1e-12, atol=1e-14)


def test_special_functions_at_their_poles() -> None:
    assert value("erfinv", [-1.0, 1.0]) == [-np.inf, np.inf]
    assert value("gamma", [0.0, 200.0]) == [np.inf, np.inf]
    assert value("gammaln", [0.0, -1.0]) == [np.inf, np.inf]
    assert np.isnan(value("erfinv", 2.0)) and np.isnan(value("gamma", -1.0)) and np.isnan(value("psi", -1.0))


def test_checks_name_what_is_wrong() -> None:
    with pytest.raises(IndexError, match="index 3 is out of bounds for axis 1 with size 3"):
        value("check_index", [0, -3, 3], bound=3, axis=1)
    with pytest.raises(ValueError, match=r"rows of x and y \(2 against 3\)"):
        value("check_size", left=2, right=3, message="rows of x and y")
    with pytest.raises(ValueError, match=r"got \[2\], wanted \[3\]"):
        value("refine", [1.0, 2.0], type=Type("f64", (3,)))


# -- the table as a whole --------------------------------------------------------------------------------------------

ROWS = pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))


@ROWS
def test_every_row_can_be_computed(row: OpDef) -> None:
    computed = row.scalar or row.expand or row.kernel or row.view is not None
    known = row.name in NOT_COMPUTED | COMPLEX_ROWS
    assert computed or known, f"op {row.name} has no scalar body, no expansion and no kernel"
    assert not (computed and known), f"op {row.name} is listed as not computed, but it is"


@ROWS
def test_every_row_has_a_sample_and_a_contract(row: OpDef) -> None:
    assert row.samples or row.name in STRUCTURE, f"op {row.name} has no sample"
    assert row.doc.endswith("."), f"op {row.name} has no doc"


@ROWS
def test_every_row_of_floats_has_a_gradient(row: OpDef) -> None:
    takes_floats = any(differentiable(row, s) for s in row.samples) or (row.name in STRUCTURE and row.pure)
    missing = takes_floats and row.grad is None
    assert missing == (row.name in NO_GRADIENT), f"op {row.name}: its gradient, and its entry in the list"


@ROWS
def test_only_scalar_rows_are_elementwise(row: OpDef) -> None:
    """What fuses takes operands of the result's shape; anything else needs more than a scalar body."""
    if not row.scalar:
        return
    for sample in row.samples:
        types = sample_types(sample)
        (result,) = row.infer(types, complete_attrs(row, sample.attrs), [])
        assert {t.shape for t in types} == {result.shape}


@ROWS
def test_reused_memory_has_the_size_of_the_result(row: OpDef) -> None:
    for sample in row.samples:
        types = sample_types(sample)
        for i in row.reuse:
            results = row.infer(types, complete_attrs(row, sample.attrs), [])
            assert types[i].shape in [result.shape for result in results]
