"""Lists of arrays inside functions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc import typed_list as L
from tcc.theano import module

VECTORS = L.TypedListType(T.dvector().type)
A = [np.array([1.0, 2.0]), np.array([]), np.array([3.0]), np.array([3.0])]


def plain(items: list) -> list:
    return [plain(x) if isinstance(x, list) else x.tolist() for x in items]


def test_lists_are_made_longer_and_shorter() -> None:
    x, y, v, i = VECTORS("x"), VECTORS("y"), T.dvector("v"), T.lscalar("i")
    outs = [
        L.append(x, v),
        L.extend(x, y),
        L.insert(x, i, v),
        L.remove(x, v),
        L.reverse(x),
        x[1:],
        x[::-1][:i],
    ]
    got = tcc.function([x, y, v, i], outs)(A, A[:1], np.array([3.0]), 1)
    p = plain(A)
    wanted = [[*p, [3.0]], [*p, p[0]], [p[0], [3.0], *p[1:]], p[:3], p[::-1], p[1:], p[::-1][:1]]
    assert [plain(g) for g in got] == wanted
    assert [a.tolist() for a in A] == p


def test_elements_and_numbers() -> None:
    x, v, i = VECTORS("x"), T.dvector("v"), T.lscalar("i")
    outs = [x[i], x[-1], L.length(x), L.count(x, v), L.index_(x, v), x[i] * 2 + v]
    got = tcc.function([x, v, i], outs)(A, np.array([3.0]), 2)
    assert [g.tolist() for g in got] == [[3], [3], 4, 2, 2, [9]]
    assert outs[2].dtype == "int64" and outs[0].type == T.dvector().type


def test_lists_of_what_is_computed() -> None:
    x, y = T.dmatrices("x", "y")
    made = L.make_list([x, x + y, x * y])
    assert made.type == L.TypedListType(x.type) and made.ndim == 3
    f = tcc.function([x, y], [made, made[1], T.dot(made[0], made[2])])
    a, b = np.arange(4.0).reshape(2, 2), np.ones((2, 2))
    got = f(a, b)
    assert plain(got[0]) == plain([a, a + b, a * b])
    np.testing.assert_array_equal(got[1], a + b)
    np.testing.assert_array_equal(got[2], a @ a)
    assert plain(pickle.loads(pickle.dumps(f))(a, b)[0]) == plain(got[0])


def test_lists_of_lists() -> None:
    kind = L.TypedListType(T.dvector().type, 1)
    assert kind.get_depth() == 1 and VECTORS.get_depth() == 0 and kind == L.TypedListType(VECTORS) != VECTORS
    x, y = kind("x"), VECTORS("y")
    got = tcc.function([x, y], [L.append(x, y), x[0][1], L.index_(x, y)])([A, A[:2]], A[:2])
    assert plain(got[0]) == plain([A, A[:2], A[:2]]) and got[1].tolist() == [] and got[2] == 1


def test_in_branches_and_loops() -> None:
    x, c = VECTORS("x"), T.lscalar("c")
    sums, _ = tcc.scan(lambda k, items: items[k].sum(), sequences=[T.arange(L.length(x))], non_sequences=[x])
    assert tcc.function([x], sums)(A).tolist() == [3, 0, 3, 3]
    chosen = tcc.ifelse(c, x[0], x[2])
    f = tcc.function([x, c], chosen)
    assert f(A, 1).tolist() == [1, 2] and f(A, 0).tolist() == [3]


def test_sparse_elements() -> None:
    sp = pytest.importorskip("scipy.sparse")
    kind = tcc.sparse.SparseType("csr", "float64")
    xs, y = L.TypedListType(kind)(), kind()
    f = tcc.function([xs, y], [L.index_(xs, y), L.count(xs, y), L.remove(xs, y)])
    a, b = sp.csr_matrix(np.eye(3)), sp.csr_matrix(np.diag([1.0, 0, 2]))
    place, number, rest = f([a, b, a.copy(), b], b)
    assert (place, number, len(rest)) == (1, 2, 3)
    with pytest.raises(ValueError):
        f([a, a], sp.csr_matrix((3, 3)))


def test_errors() -> None:
    x, i, v = VECTORS("x"), T.lscalar("i"), T.dvector("v")
    f = tcc.function([x, i], x[i])
    with pytest.raises(IndexError):
        f(A, 9)
    for wrong, kind in ((np.ones(2), TypeError), ([np.ones((2, 2))], TypeError), (["a"], ValueError)):
        with pytest.raises(kind, match="Bad input argument x"):
            f(wrong, 0)
    with pytest.raises(ValueError, match="not in the list"):
        tcc.function([x, v], L.index_(x, v))(A, np.ones(3))
    with pytest.raises(TypeError):
        L.append(x, T.dmatrix())
    with pytest.raises(TypeError):
        L.extend(x, L.TypedListType(T.dmatrix().type)())
    with pytest.raises(TypeError, match="scalar"):
        x[v]
    with pytest.raises(TypeError):
        L.append(v, v)
    with pytest.raises(TypeError, match="same type"):
        L.make_list([v, i])
    with pytest.raises(TypeError, match="runs"):
        len(x)


def test_theanos_paths() -> None:
    t = module("typed_list")
    assert (
        t.TypedListType is L.TypedListType
        and t.basic.make_list is L.make_list
        and t.type.TypedListType is L.TypedListType
    )
