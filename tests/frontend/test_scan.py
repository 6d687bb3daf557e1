"""scan in its plain form."""

from __future__ import annotations

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.sandbox.rng_mrg import MRG_RandomStreams
from tcc.tensor.shared_randomstreams import RandomStreams

V = np.arange(1.0, 5.0)


def test_a_map():
    x = T.vector("x")
    made, updates = tcc.scan(lambda a: a * 2, sequences=x)
    assert isinstance(made, T.Variable) and updates == {}
    assert made.eval({x: V}).tolist() == [2, 4, 6, 8]
    assert made.eval({x: []}).tolist() == []
    listed, _ = tcc.scan(lambda a: [a * 2], sequences=x, return_list=True)
    assert type(listed) is list
    alone, _ = tcc.scan(lambda a: [a * 2], sequences=x)
    assert isinstance(alone, T.Variable)


def test_a_recurrence_with_captures_and_two_outputs():
    x, w = T.matrix("x"), T.matrix("w")
    h0 = T.vector("h0")
    (hs, doubled), _ = tcc.scan(
        lambda a, h, m: (T.tanh(a + T.dot(h, w)), (h * m).sum()), [x], [h0, None], [2.0]
    )
    f = tcc.function([x, h0, w], [hs, doubled])
    a, m = np.random.default_rng(0).normal(size=(5, 3)), np.eye(3) * 0.5
    h, expected, sums = np.zeros(3), [], []
    for row in a:
        sums.append(h.sum() * 2)
        h = np.tanh(row + h @ m)
        expected.append(h)
    made, other = f(a, np.zeros(3), m)
    np.testing.assert_allclose(made, expected)
    np.testing.assert_allclose(other, sums)


def test_the_initial_value_is_not_in_the_output():
    made, _ = tcc.scan(lambda h: h + 1, outputs_info=np.float64(0), n_steps=3)
    assert made.eval().tolist() == [1, 2, 3]


def test_powers():
    k, a = T.iscalar("k"), T.vector("a")
    made, updates = tcc.scan(
        lambda prior, base: prior * base, outputs_info=T.ones_like(a), non_sequences=a, n_steps=k
    )
    f = tcc.function([a, k], made[-1], updates=updates)
    assert f(range(5), 3).tolist() == [0, 1, 8, 27, 64]


def test_taps():
    x = T.vector("x")
    made, _ = tcc.scan(lambda before, after: before * after, sequences=[{"input": x, "taps": [-1, 1]}])
    assert made.eval({x: V}).tolist() == [3, 8]
    fib, _ = tcc.scan(
        lambda two, one: two + one,
        outputs_info=[{"initial": T.constant([0.0, 1.0]), "taps": [-2, -1]}],
        n_steps=5,
    )
    assert fib.eval().tolist() == [1, 2, 3, 5, 8]


def test_the_shortest_sequence_decides():
    x, y = T.vectors("x", "y")
    made, _ = tcc.scan(lambda a, b: a + b, sequences=[x, y])
    assert made.eval({x: V, y: V[:2]}).tolist() == [2, 4]


def test_a_sequence_that_is_too_short():
    x, n = T.vector("x"), T.lscalar("n")
    made, _ = tcc.scan(lambda a: a, sequences=x, n_steps=n)
    assert made.eval({x: V, n: 2}).tolist() == [1, 2]
    with pytest.raises(ValueError, match="Sequence is shorter then the required number of steps"):
        made.eval({x: V, n: 5})
    with pytest.raises(ValueError):
        made.eval({x: V, n: -1})
    with pytest.raises(ValueError, match="Sequence is shorter"):
        tcc.scan(lambda a: a, sequences=T.constant(V), n_steps=9)


def test_backwards():
    x = T.vector("x")
    for options in ({"go_backwards": True}, {"n_steps": -4}):
        made, _ = tcc.scan(lambda a, h: h * 2 + a, sequences=x, outputs_info=np.float64(0), **options)
        assert made.eval({x: V}).tolist() == [4, 11, 24, 49]


def test_one_step_is_no_loop():
    x = T.vector("x")
    made, _ = tcc.scan(lambda a, h: a + h, sequences=x, outputs_info=np.float64(1), n_steps=1)
    assert made.eval({x: V}).tolist() == [2]
    assert "for{" not in tcc.printing.debugprint(made, file="str")


def test_fn_is_called_once():
    calls = []
    tcc.scan(lambda a: calls.append(1) or a, sequences=T.vector())
    assert calls == [1]


def test_dtypes_of_states_must_agree():
    x = T.fvector("x")
    with pytest.raises(
        ValueError, match=r"The initial state .* has dtype int8, while the result .* has dtype float32"
    ):
        tcc.scan(lambda a, h: a + h, sequences=x, outputs_info=0)


def test_flags_of_states_must_agree():
    x = T.tensor3("x")
    start = T.zeros((4, 1))
    with pytest.raises(TypeError, match="Cannot convert Type .* into Type"):
        tcc.scan(lambda a, h: h + a, sequences=x, outputs_info=start)
    made, _ = tcc.scan(lambda a, h: h + a, sequences=x, outputs_info=T.unbroadcast(start, 1))
    assert made.eval({x: np.ones((2, 4, 1))})[-1].sum() == 8


def test_updates():
    total, x = tcc.shared(0.0, "total"), T.vector("x")
    made, updates = tcc.scan(lambda a: (a * total, {total: total + a}), sequences=x)
    assert list(updates) == [total]
    assert tcc.function([x], made, updates=updates)(V).tolist() == [0, 2, 9, 24]
    assert total.get_value() == 10
    more = updates + {tcc.shared(1.0): 1}
    assert len(more) == 2


def test_strict():
    w, x = tcc.shared(2.0, "W"), T.vector("x")
    with pytest.raises(tcc.MissingInputError, match="ScanOp is missing an input: W"):
        tcc.scan(lambda a: a * w, sequences=x, strict=True)
    made, _ = tcc.scan(lambda a, m: a * m, sequences=x, non_sequences=w, strict=True)
    assert made.eval({x: V}).tolist() == [2, 4, 6, 8]


def test_strict_allows_what_hangs_on_the_given_and_what_is_not_shared():
    m, x = tcc.shared(np.ones((2, 3)), "m"), T.vector("x")
    with pytest.raises(tcc.MissingInputError, match="ScanOp is missing an input: m"):
        tcc.scan(lambda a: (a + 2 * m).sum(), sequences=x, strict=True)
    made, _ = tcc.scan(lambda a, m: (a + m).sum() / m.shape[0], sequences=x, non_sequences=m, strict=True)
    assert made.eval({x: V}).tolist() == (3 * (V + 1)).tolist()
    c = T.scalar("c")
    made, _ = tcc.scan(lambda a: a * c, sequences=x, strict=True)
    assert made.eval({x: V, c: 2.0}).tolist() == (2 * V).tolist()


def test_map_and_folds():
    x = T.vector("x")
    squares, updates = tcc.map(lambda a, c: a * a + c, x, non_sequences=x[0])
    assert not updates and squares.eval({x: V}).tolist() == [2, 5, 10, 17]
    start = T.zeros(())
    for fold, want in ((tcc.reduce, 4), (tcc.foldl, 4), (tcc.foldr, 1)):
        last, _ = fold(lambda element, accumulator: element + 0 * accumulator, x, start)
        assert last.ndim == 0 and last.eval({x: V}) == want
    total, _ = tcc.foldl(lambda element, accumulator: element - accumulator, x, start)
    assert total.eval({x: V}) == 4 - (3 - (2 - 1))


def test_nested():
    m = T.matrix("m")

    def row_sums(row):
        made, _ = tcc.scan(lambda a, h: a + h, sequences=row, outputs_info=np.float64(0))
        return made[-1]

    made, _ = tcc.scan(row_sums, sequences=m)
    assert made.eval({m: [[1, 2], [3, 4]]}).tolist() == [3, 7]


def test_no_length():
    with pytest.raises(ValueError, match="No information about the number of steps"):
        tcc.scan(lambda: T.constant(1.0))


def test_what_outputs_info_must_hold():
    with pytest.raises(ValueError, match="Please provide None as outputs_info"):
        tcc.scan(lambda a: (a, a), sequences=T.vector(), outputs_info=[None])


def test_givens_reach_into_the_body():
    x, k = T.vector("x"), T.scalar("k")
    made, _ = tcc.scan(lambda a: a * (k + 1), sequences=x)
    assert tcc.function([x], made, givens={k: np.float64(2)})(V).tolist() == [3, 6, 9, 12]


def test_text():
    from tcc.ir.text import parse_func, print_func
    from tcc.ir.verify import verify

    x, h = T.matrix("x"), T.vector("h")
    made, _ = tcc.scan(lambda a, b: T.tanh(a + b), sequences=x, outputs_info=h)
    func = tcc.function([x, h], made).func
    verify(func)
    text = print_func(func)
    assert print_func(parse_func(text)) == text


def test_a_state_whose_size_is_told_in_the_loop_is_stacked() -> None:
    """The state has its first value's size, whatever the step had to compute to know that."""
    times, first = T.lvector("times"), T.dvector("first")
    out, _ = tcc.scan(
        lambda n, h: T.tile(h + 1, n.dimshuffle("x"), ndim=1), sequences=times, outputs_info=first
    )
    f = tcc.function([times, first], out)
    np.testing.assert_array_equal(f([1, 1], [0.0, 5.0]), [[1, 6], [2, 7]])
    with pytest.raises(ValueError, match="4 against 2"):
        f([1, 2], [0.0, 5.0])


def test_sizes_that_are_the_same_in_every_step_are_told_before_the_loop() -> None:
    x, k = T.matrix("x"), T.lscalar("k")
    made, _ = tcc.scan(lambda row: T.tile(row[:2], k * 2 - 1, ndim=1), sequences=x)
    f = tcc.function([x, k], made)
    rows = np.arange(12.0).reshape(4, 3)
    for count in (1, 3):
        np.testing.assert_array_equal(f(rows, count), np.tile(rows[:, :2], (1, 2 * count - 1)))
    assert f(rows[:0], 2).shape == (0, 6)


def test_what_is_stacked_may_come_from_sizes_that_differ() -> None:
    """As long as its own size is the same in every step."""
    m = T.matrix("m")
    values = np.array([[2.0, -3.0, 1.0, 5.0], [1.0, 9.0, -2.0, -4.0], [-6.0, -7.0, 3.0, 4.0]])
    kept = [row[row > 0] for row in values]
    for cut in (slice(None, 2), slice(None, None, -1)):
        pairs, _ = tcc.scan(lambda row, cut=cut: row[row > 0][:2][cut] ** 2, sequences=m)
        f = tcc.function([m], [pairs, tcc.grad(pairs.sum(), m)])
        made, slope = f(values)
        np.testing.assert_array_equal(made, [row[:2][cut] ** 2 for row in kept])
        first_two = (values > 0) & (np.cumsum(values > 0, axis=1) <= 2)
        np.testing.assert_array_equal(slope, 2 * values * first_two)
        with pytest.raises(ValueError, match="the same size in every step"):
            f(-values)
    ends = T.lvector("ends")
    firsts, _ = tcc.scan(lambda n: T.arange(n)[:1] + n, sequences=ends)
    assert firsts.eval({ends: [2, 5, 1]}).tolist() == [[2], [5], [1]]


def test_sizes_that_the_steps_tell_must_agree() -> None:
    x, starts, most = T.vector("x"), T.lvector("starts"), T.lscalar("most")
    windows, _ = tcc.scan(lambda i: x[i : i + 2] * 2, sequences=starts)
    f = tcc.function([x, starts], windows)
    v = np.arange(6.0)
    assert f(v, [0, 3, 4]).tolist() == [[0, 2], [6, 8], [8, 10]]
    assert f(v, []).shape == (0, 0)
    with pytest.raises(ValueError, match="the same size in every step"):
        f(v, [0, 5])
    (counts, tiles), _ = tcc.scan(
        lambda n: ([n, T.ones((3,)) * T.arange(3)[:n].sum()], tcc.until(n >= most)),
        sequences=starts,
    )
    g = tcc.function([starts, most], [counts, tiles])
    assert [a.tolist() for a in g([1, 2, 9], 2)] == [[1, 2], [[0] * 3, [1] * 3]]
    until, _ = tcc.scan(lambda i: (x[i : i + 2], tcc.until(i >= most)), sequences=starts)
    assert tcc.function([x, starts, most], until)(v, [0, 1, 5], 1).tolist() == [[0, 1], [1, 2]]


def test_a_draw_in_the_shape_of_an_element_seen_from_a_second_loop():
    stream = MRG_RandomStreams(3)
    x = T.matrix("x")
    noisy, updates = tcc.scan(lambda row: row + stream.uniform(row.shape, ndim=1), [x])
    shifted, more = tcc.scan(lambda row: noisy + row[0], [x])  # hangs on the first loop's state
    f = tcc.function([x], [noisy, shifted], updates=updates | more)
    got, moved = f(np.zeros((3, 2)))
    assert got.shape == (3, 2) and moved.shape == (3, 3, 2)
    assert ((0 < got) & (got < 1)).all() and not np.array_equal(got[0], got[1])


@pytest.mark.parametrize("bad", [[[1, 2], [3, 10**9]], [[1, 2], [-5, 0]]])
def test_indices_of_a_step_are_checked_before_rows_are_taken_for_all_steps(bad):
    table, rows, weights = T.fmatrix("table"), T.imatrix("rows"), T.fmatrix("weights")
    states, _ = tcc.scan(
        lambda i, h, table, weights: T.tanh(h + T.dot(table[i], weights)),
        rows,
        T.zeros((2, 3), "float32"),
        [table, weights],
    )
    f = tcc.function([table, rows, weights], states[-1])
    with pytest.raises(IndexError, match="out of bounds for a"):
        f(np.zeros((4, 3), np.float32), np.int32(bad), np.eye(3, dtype=np.float32))


def test_what_is_given_as_a_non_sequence_is_drawn_once():
    x = T.matrix()
    y = RandomStreams(3).uniform(x.shape)
    z, updates = tcc.scan(lambda a: a, non_sequences=y, n_steps=2)
    one, two = tcc.function([x], [y, z], updates=updates)(np.zeros((2, 3)))
    assert np.array_equal(two, [one, one])


def test_forms_of_arguments_and_of_what_a_step_returns():
    x, w = T.vectors("x", "w")
    count = tcc.shared(0.0)
    y, _ = tcc.scan(lambda v, w: v + 1, x, [], [w])  # no states; w is not read, but taken
    assert tcc.function([x, w], y)([1.0, 2], [0.0]).tolist() == [2, 3]
    (a, b), updates = tcc.scan(lambda v: [(v, v * 2), {count: count + v}], x)
    made = tcc.function([x], [a, b], updates=updates)([1.0, 2])
    assert [m.tolist() for m in made] == [[1, 2], [2, 4]] and count.get_value() == 3
    with pytest.raises(ValueError, match="different from each other"):
        tcc.scan(lambda v, p, q: v, x, {"initial": w, "taps": [-1, -1]})
    once, _ = tcc.scan(lambda v, p: v + p, x, 0, n_steps=1)  # no next step to which the dtype matters
    assert tcc.function([x], once)([3.0]).tolist() == [3]


def test_gradients_by_the_parameters_of_draws_are_not_defined():
    x, streams = T.matrix("x"), RandomStreams(3)
    made, _ = tcc.scan(lambda row: row + streams.multinomial(n=1, pvals=row), x)
    with pytest.raises(tcc.gradient.NullTypeGradError):
        tcc.grad(made.sum(), x)
    sized, _ = tcc.scan(lambda row: row * streams.uniform(row.shape), x)
    tcc.grad(sized.sum(), x)


@pytest.mark.parametrize(
    "first, after", [("few all", "all few"), ("all few", "few all"), ("all all", "few few")]
)
def test_a_state_with_two_sizes_that_only_running_finds_equal(first, after):
    x = T.matrix("x")
    sizes = {"all": x.shape[0], "few": x[:3].shape[0]}
    start, shape = ([sizes[n] for n in names.split()] for names in (first, after))
    states, _ = tcc.scan(lambda h: T.tanh(h.sum() + T.zeros(shape)), None, T.zeros(start), n_steps=4)
    f = tcc.function([x], states[-1])
    assert f(np.ones((3, 2))).shape == (3, 3)
    with pytest.raises(ValueError, match="mis-match"):
        f(np.ones((5, 2)))
