"""Printing and checking while a function runs."""

from __future__ import annotations

import pytest

import tcc
import tcc.tensor as T


def test_print_survives_and_passes_gradients(capsys):
    x = T.scalar()
    y = tcc.debug.print(x * 2, "twice")
    assert tcc.function([x], tcc.grad(y**2, x))(3.0) == 24
    assert "twice __str__ = 6.0" in capsys.readouterr().out


def test_print_in_every_step(capsys):
    x = T.vector()
    hs, _ = tcc.scan(lambda a, h: tcc.debug.print(a * h, "h"), [x], [T.ones(())])
    assert tcc.function([x], hs[-1])([2.0, 3.0]) == 6
    assert capsys.readouterr().out.splitlines() == ["h __str__ = 2.0", "h __str__ = 6.0"]


def test_assert():
    x = T.vector()
    checked = tcc.debug.Assert("all must be positive")(x, x > 0, T.gt(x.shape[0], 1))
    f = tcc.function([x], tcc.grad((checked**2).sum(), x))
    assert f([1.0, 2.0]).tolist() == [2, 4]
    for bad in ([1.0, -2.0], [1.0]):
        with pytest.raises(AssertionError, match="all must be positive"):
            f(bad)


def test_assert_in_the_branch_that_is_not_taken():
    x = T.scalar()
    y = tcc.ifelse(x > 0, tcc.debug.Assert("never")(x, x < 0), -x)
    f = tcc.function([x], y)
    assert f(-3.0) == 3
    with pytest.raises(AssertionError, match="never"):
        f(3.0)
