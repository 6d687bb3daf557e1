"""Random streams: the numbers of NumPy's and Theano's generators, and the statistics of our own."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.ir.ops.random import mrg_ref
from tcc.random import Stream
from tcc.sandbox.rng_mrg import MRG_RandomStreams, advanced, guess_n_streams, jump
from tcc.tensor.shared_randomstreams import RandomStreams

# -- Philox ----------------------------------------------------------------------------------------------------------

N = 40_000
DISTRIBUTIONS = {  # mean and variance
    "uniform": (lambda s, d: s.uniform((200, 200), -1.0, 3.0, dtype=d), 1.0, 16 / 12),
    "normal": (lambda s, d: s.normal((200, 200), 2.0, 3.0, dtype=d), 2.0, 9.0),
    "truncated": (lambda s, d: s.truncated_normal((200, 200), dtype=d), 0.0, 0.87962566103423978**2),
    "exponential": (lambda s, d: s.exponential((200, 200), 2.0, dtype=d), 2.0, 4.0),
    "gumbel": (lambda s, d: s.gumbel((200, 200), dtype=d), 0.57721566, math.pi**2 / 6),
    "bernoulli": (lambda s, d: s.bernoulli((200, 200), 0.3, dtype=d), 0.3, 0.21),
    "binomial": (lambda s, d: s.binomial((200, 200), 5, 0.3, dtype=d), 1.5, 1.05),
    "integers": (lambda s, d: s.integers((200, 200), -3, 7, dtype=d), 1.5, 99 / 12),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mean_and_variance(name, dtype):
    draw, mean, variance = DISTRIBUTIONS[name]
    made = tcc.function([], draw(Stream(1), dtype))()
    assert made.dtype == dtype and np.isfinite(made).all()
    made = made.astype(float)
    fourth = ((made - mean) ** 4).mean()
    assert abs(made.mean() - mean) < 5 * math.sqrt(variance / N)
    assert abs(((made - mean) ** 2).mean() - variance) < 5 * math.sqrt(fourth / N)
    assert abs(np.corrcoef(made[:, :-1].ravel(), made[:, 1:].ravel())[0, 1]) < 5 / math.sqrt(N)


def test_a_number_hangs_on_seed_draw_call_and_index_alone():
    s = Stream(7)
    x = T.matrix("x")
    f = tcc.function([x], s.uniform(x.shape))
    first, second = f(np.zeros((4, 6))), f(np.zeros((3, 8)))
    assert not np.array_equal(first.ravel(), second.ravel())
    s.seed()
    assert np.array_equal(f(np.zeros((3, 8))).ravel(), first.ravel())
    s.seed(8)
    assert not np.array_equal(f(np.zeros((4, 6))), first)
    again = Stream(7)
    again.uniform((3,))
    assert not np.array_equal(tcc.function([], again.uniform((4, 6)))(), first)


def test_a_draw_used_twice_is_one_draw_and_another_is_not():
    s = Stream(1)
    a, b = s.normal((5,)), s.normal((5,))
    same, other = tcc.function([], [a - a, a - b])()
    assert not same.any() and other.all()


def test_updates_may_be_left_out():
    s = Stream(1)
    u = s.uniform((3,))
    f = tcc.function([], u, no_default_updates=True)
    assert np.array_equal(f(), f())
    assert len(s.state_updates) == 1


def test_dropout_is_one_kernel():
    x = T.fmatrix("x")
    f = tcc.function([x], x * Stream(1).binomial(x.shape, p=0.5, dtype="float32") * 2, mode="FAST_RUN")
    f(np.ones((8, 8), np.float32))
    assert [
        op.name for op in f.optimised().body.walk() if op.name == "fuse" and len(op.attrs["dims"]) == 2
    ] == ["fuse"]


def test_the_gradient_goes_through_mean_and_deviation():
    m = T.vector("m")
    z = Stream(1).normal((3,), avg=m, std=2.0, dtype="float64")
    assert tcc.function([m], T.grad((3 * z).sum(), m))([0, 0, 0]).tolist() == [3, 3, 3]


def test_permutations_and_choices():
    s = Stream(1)
    p, many = tcc.function([], [s.permutation(50), s.permutation(4, size=(20,))])()
    assert sorted(p.tolist()) == list(range(50)) and p.tolist() != list(range(50))
    assert (np.sort(many, 1) == np.arange(4)).all() and len({tuple(r) for r in many.tolist()}) > 5
    x = T.matrix("x")
    made = tcc.function([x], s.shuffle(x))(np.arange(20.0).reshape(10, 2))
    assert sorted(made[:, 0]) == list(range(0, 20, 2)) and (made[:, 1] == made[:, 0] + 1).all()
    draws = [
        s.choice((4000,), 5),
        s.choice((4000,), a=np.array([3.0, 4.0]), p=np.array([0.25, 0.75])),
        s.choice(3, 5, replace=False),
        s.choice(2, 4, replace=False, p=np.array([0.0, 0.5, 0.5, 0.0])),
    ]
    free, weighed, without, likely = tcc.function([], draws)()
    assert (abs(np.bincount(free) - 800) < 150).all()
    assert abs((weighed == 4).mean() - 0.75) < 0.05
    assert len(set(without.tolist())) == 3 and sorted(likely.tolist()) == [1, 2]


def test_multinomial_and_categorical():
    p = np.tile([0.1, 0.4, 0.5], (3000, 1))
    s = Stream(1)
    counts, one = tcc.function([], [s.multinomial(4, p), s.categorical(p)])()
    assert (counts.sum(1) == 4).all()
    np.testing.assert_allclose(counts.mean(0), [0.4, 1.6, 2.0], atol=0.1)
    np.testing.assert_allclose(np.bincount(one) / 3000, [0.1, 0.4, 0.5], atol=0.05)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed"):
        Stream(seed)


def test_integers_say_their_range():
    with pytest.raises(ValueError, match="from low to high"):
        Stream(1).integers((3,), 5, 5)


# -- NumPy's RandomState ---------------------------------------------------------------------------------------------


def states(seed):
    generator = np.random.RandomState(seed)
    while True:
        yield np.random.RandomState(int(generator.randint(2**30)))


DRAWS = {
    "uniform": (dict(size=(2, 3), low=-1.0, high=2.0), lambda r: r.uniform(-1, 2, (2, 3))),
    "normal": (dict(size=(2, 2), avg=[1.0, 5.0], std=2.0), lambda r: r.normal([1, 5], 2, (2, 2))),
    "binomial": (dict(size=(6,), n=5, p=0.3), lambda r: r.binomial(5, 0.3, 6)),
    "random_integers": (dict(size=(6,), low=-2, high=4), lambda r: r.randint(-2, 5, 6)),
    "choice": (dict(size=(3,), a=9, replace=False), lambda r: r.choice(9, 3, False)),
    "poisson": (dict(size=(4,), lam=3.0), lambda r: r.poisson(3.0, 4)),
    "permutation": (dict(n=6), lambda r: r.permutation(6)),
    "multinomial": (dict(size=(2,), n=6, pvals=[0.2, 0.8]), lambda r: r.multinomial(6, [0.2, 0.8], 2)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_streams_draw_what_numpy_draws(name):
    kwargs, draw = DRAWS[name]
    seeds = states(234)
    r = RandomStreams(234)
    r.uniform((1,))
    next(seeds)
    f = tcc.function([], getattr(r, name)(**kwargs))
    numpys = next(seeds)
    for _ in range(3):
        wanted = draw(numpys)
        made = f()
        assert made.dtype == wanted.dtype and np.array_equal(made, wanted)


def test_random_streams_that_take_turns_keep_to_their_states():
    r, seeds = RandomStreams(7), states(7)
    f = tcc.function(
        [], [r.normal((3,)), r.normal((1,)), r.uniform((2,))]
    )  # odd: a normal number is left over
    a, b, c = (next(seeds) for _ in range(3))
    for _ in range(3):
        wanted = a.normal(size=3), b.normal(size=1), c.uniform(size=2)
        assert all(np.array_equal(made, w) for made, w in zip(f(), wanted))


def test_random_streams_keep_their_states():
    r = RandomStreams(234)
    u, n = r.uniform((2,)), r.normal((2,))
    f = tcc.function([], u)
    g = tcc.function([], n, no_default_updates=True)
    first = f()
    assert not np.array_equal(f(), first) and np.array_equal(g(), g())
    r.seed(234)
    assert np.array_equal(f(), first)
    state = u.rng.get_value(borrow=True)
    state.seed(9)
    u.rng.set_value(state, borrow=True)
    assert np.array_equal(f(), np.random.RandomState(9).uniform(size=2))
    r[u.rng] = np.random.RandomState(10)
    assert np.array_equal(f(), np.random.RandomState(10).uniform(size=2))
    assert r.updates()[0] == u.update and u.rng.default_update is u.update[1]


def test_random_streams_with_sizes_of_the_parameters_and_of_variables():
    r = RandomStreams(1)
    n = T.lscalar("n")
    a, b = tcc.function([n], [r.uniform(low=np.zeros(3)), r.uniform((n, 2), dtype="float32")])(4)
    assert a.shape == (3,) and b.shape == (4, 2) and b.dtype == np.float32
    with pytest.raises(ValueError):
        r.uniform((2, 3), ndim=1)


# -- MRG31k3p --------------------------------------------------------------------------------------------------------


def test_jumps_are_the_published_matrices():
    assert jump(72)[0][0].tolist() == [1516919229, 758510237, 499121365]
    assert jump(72)[1][1].tolist() == [1133297478, 1407477216, 1496414766]
    assert jump(134)[0][2].tolist() == [1143731069, 828554832, 102237247]
    assert jump(134)[1][0].tolist() == [796789021, 1464208080, 607337906]


def test_mrg_draws_theanos_numbers():
    made = tcc.function([], MRG_RandomStreams(12345).uniform((7, 3), dtype="float64"))()
    wanted = [0.7353244530968368, 0.6142074400559068, 0.11007806099951267]
    np.testing.assert_allclose(made[:3, 0], wanted, rtol=1e-15)


def test_streams_and_draws_lie_apart():
    r = MRG_RandomStreams(12345)
    first = r.get_substream_rstates(40)
    assert np.array_equal(first[:1], np.full((1, 6), 12345))
    for i in range(39):
        assert np.array_equal(advanced(first[i : i + 1], 72)[0], first[i + 1])
    assert np.array_equal(advanced(first[:1], 134)[0], r.rstate)
    assert [guess_n_streams(s) for s in [(3,), (6, 2), (1000, 1000)]] == [3, 2, 15360]


def test_mrg_goes_on_from_call_to_call():
    r = MRG_RandomStreams(5)
    u = r.uniform((12,))
    f = tcc.function([], u)
    both = np.concatenate([f(), f()])
    s = MRG_RandomStreams(5)
    whole = tcc.function([], s.uniform((24,), nstreams=2))()
    assert np.array_equal(both, whole)
    r.seed(5)
    assert np.array_equal(f(), both[:12])
    assert u.rstate.default_update is u.update[1] and len(r.updates()) == 1


def test_mrgs_distributions():
    r = MRG_RandomStreams(5)
    n = T.lscalar("n")
    normal, cut, coin = tcc.function(
        [n], [r.normal((n, 100), 2.0, 3.0), r.truncated_normal((n, 101)), r.binomial((n, 100), p=0.3)]
    )(99)
    assert normal.shape == (99, 100) and abs(normal.mean() - 2) < 0.2 and abs(normal.std() - 3) < 0.2
    assert cut.shape == (99, 101) and abs(cut).max() <= 2 / 0.8796 and abs(cut.std() - 1) < 0.03
    assert coin.dtype == np.int64 and abs(coin.mean() - 0.3) < 0.02


def test_mrg_draws_halves_of_fifteen_bits():
    """(z % 2^15 + 1) * float16(3.0458e-05), which rounds neither to 0 nor to 1."""
    whole = tcc.function([], MRG_RandomStreams(7).uniform((300, 400), dtype="float64"))() * 2.0**31
    halves = tcc.function([], MRG_RandomStreams(7).uniform((300, 400), dtype="float16"))()
    wanted = (whole.astype(np.int64) % 2**15 + 1) * float(np.float16(3.0458e-05))
    assert halves.dtype == np.float16 and np.array_equal(halves, wanted.astype(np.float16))
    assert 0 < halves.min() and halves.max() < 1
    r = MRG_RandomStreams(7)
    normal, cut = tcc.function(
        [], [r.normal((301, 99), 1, 2, dtype="float16"), r.truncated_normal((301, 99), dtype="float16")]
    )()
    assert normal.dtype == cut.dtype == np.float16 and np.isfinite(normal).all()
    assert abs(normal.mean(dtype=float) - 1) < 0.05 and abs(normal.std(dtype=float) - 2) < 0.05
    assert abs(cut).max() < 2.3


def test_mrgs_rows():
    r = MRG_RandomStreams(5)
    p = np.tile([0.1, 0.4, 0.5, 0.0], (1000, 1))
    counts, chosen = tcc.function([], [r.multinomial(n=3, pvals=p), r.choice(size=2, replace=False, p=p)])()
    assert (counts.sum(1) == 3).all() and counts.dtype == np.int64
    np.testing.assert_allclose(counts.mean(0), [0.3, 1.2, 1.5, 0], atol=0.1)
    assert chosen.shape == (1000, 2) and (chosen[:, 0] != chosen[:, 1]).all() and chosen.max() == 2
    np.testing.assert_allclose((chosen[:, 0] == 2).mean(), 0.5, atol=0.06)


REFUSED = [
    (lambda r: MRG_RandomStreams(0), ValueError, "seed should not be 0"),
    (lambda r: MRG_RandomStreams(2**31), ValueError, "less than"),
    (lambda r: MRG_RandomStreams([0, 0, 0, 1, 2, 3]), ValueError, "first 3 values"),
    (lambda r: MRG_RandomStreams([1, 2, 3]), TypeError, "6 integers"),
    (lambda r: r.uniform((3, 0)), ValueError, "dimension with value <= 0"),
    (lambda r: r.binomial((3,), n=2), NotImplementedError, "n > 1"),
    (lambda r: r.multinomial(size=(3,), pvals=np.ones((1, 1))), ValueError, "size argument"),
    (lambda r: r.choice(size=4, replace=False, p=np.ones((1, 3)) / 3), ValueError, "bigger than the size"),
    (lambda r: r.choice(size=1, p=np.ones((1, 3)) / 3), NotImplementedError, "without replacement"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_mrg_refuses_what_theano_refuses(number):
    act, error, match = REFUSED[number]
    with pytest.raises(error, match=match):
        act(MRG_RandomStreams(1))


@pytest.mark.parametrize(
    "streams", [lambda: Stream(1), lambda: RandomStreams(1), lambda: MRG_RandomStreams(1)]
)
def test_draws_in_a_scan_differ_from_step_to_step(streams):
    r = streams()
    out, updates = tcc.scan(lambda: r.uniform((4,)), n_steps=3)
    f = tcc.function([], out, updates=updates)
    a, b = f(), f()
    assert len(np.unique(np.concatenate([a, b]))) == 24


def test_few_numbers_of_many_streams_leave_the_others_alone():
    """As many streams as a program makes that does not say how many numbers it will want; one draw after another, and in a loop."""
    random, p = MRG_RandomStreams(3), T.matrix("p")
    one = tcc.function([p], random.uniform(p.shape))
    start = np.array(random.state_updates[0][0].get_value())
    assert len(start) > 1000
    state = start
    for shape in ((3, 5), (2, 40), (0, 3)):
        state, want = mrg_ref(state, shape[0] * shape[1], "f64")
        assert np.array_equal(one(np.zeros(shape)), want.reshape(shape))
        assert np.array_equal(random.state_updates[0][0].get_value(), state)
    random = MRG_RandomStreams(3)
    steps, updates = tcc.scan(lambda q: random.uniform(q.shape), outputs_info=p, n_steps=3)
    drawn, state = tcc.function([p], steps, updates=updates)(np.zeros((3, 5))), start
    for got in drawn:
        state, want = mrg_ref(state, 15, "f64")
        assert np.array_equal(got, want.reshape(3, 5))
