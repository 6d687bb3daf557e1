"""Modes: what is compiled, what is interpreted, and what the watching ones report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tcc
import tcc.tensor as T
from tcc.callables import CompiledFunction, InterpretedFunction
from tcc.devices import CompiledForDevice
from tcc.modes import (
    BadOptimization,
    DebugFunction,
    DebugMode,
    InvalidValueError,
    Mode,
    MonitorMode,
    NanGuardMode,
    get_mode,
)

x = T.dvector("x")
Compiled = CompiledFunction if tcc.config.device == "cpu" else CompiledForDevice


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("FAST_RUN", Compiled),
        ("FAST_COMPILE", InterpretedFunction),
        (Mode(), Compiled),
        (Mode(linker="py"), InterpretedFunction),
        (Mode(optimizer=None), InterpretedFunction),
        (Mode("cvm", "fast_run").including("fusion"), Compiled),
        ("DebugMode", DebugFunction),
        ("NanGuardMode", InterpretedFunction),
    ],
)
def test_what_a_mode_makes(mode: Any, kind: type) -> None:
    f = tcc.function([x], x * 2, mode=mode)
    assert type(f) is kind
    np.testing.assert_array_equal(f([1.0, 2.0]), [2.0, 4.0])


def test_the_default_comes_from_config() -> None:
    with tcc.change_flags(mode="FAST_COMPILE"):
        assert type(tcc.function([x], x + 1)) is InterpretedFunction
    for flag in ({"optimizer": "fast_compile"}, {"linker": "py"}):
        with tcc.change_flags(mode="Mode", **flag):
            assert type(tcc.function([x], x + 1)) is InterpretedFunction
    with pytest.raises(ValueError, match="one of default, fast_run"):
        tcc.config.optimizer = "zip"


@pytest.mark.parametrize(
    "make", [lambda: get_mode("FAST"), lambda: Mode(linker="d"), lambda: Mode(optimizer="x")]
)
def test_unknown_words(make: Any) -> None:
    with pytest.raises(ValueError, match="there are"):
        make()


@pytest.mark.parametrize(
    ("expression", "value", "text"),
    [
        (lambda: T.log(x), -1.0, r"NaN detected.*the output of log\(f64\[x_0\]\).*test_modes.py:\d+"),
        (lambda: 1 / x, 0.0, "Inf detected"),
        (lambda: x * 1e9, 1e9, "Big value detected"),
        (lambda: x + 1, np.nan, "NaN detected.*the input x"),
    ],
)
def test_nan_guard_names_the_operation(expression: Any, value: float, text: str) -> None:
    f = tcc.function([x], expression(), mode=NanGuardMode())
    np.testing.assert_array_equal(f([2.0]).shape, (1,))
    with pytest.raises(AssertionError, match=f"(?s){text}"):
        f([value])


def test_nan_guard_overlooks_what_it_is_told_to() -> None:
    f = tcc.function([x], 1 / x, mode=NanGuardMode(inf_is_error=False, big_is_error=False))
    assert f([0.0])[0] == np.inf


def test_nan_guard_stops_before_an_update() -> None:
    w = tcc.shared(np.ones(2), "w")
    f = tcc.function([x], [], updates=[(w, T.log(x))], mode=NanGuardMode())
    with pytest.raises(AssertionError, match="NaN"):
        f([-1.0, 1.0])
    np.testing.assert_array_equal(w.get_value(), [1, 1])


def test_a_monitor_sees_each_operation() -> None:
    seen: list[Any] = []

    def before(i: int, node: Any, fn: Any) -> None:
        seen.append((i, "before", [c[0].copy() for c in fn.inputs], fn.outputs[0][0]))

    def after(i: int, node: Any, fn: Any) -> None:
        seen.append((i, node.name, [c[0].copy() for c in fn.outputs]))
        printed.append(tcc.printing.debugprint(node, file="str"))

    printed: list[str] = []
    tcc.function([x], T.exp(-x), mode=MonitorMode(before, after))([0.0])
    names = [s[1] for s in seen if s[1] != "before"]
    assert names == ["neg", "exp"]
    assert printed[1].splitlines() == [
        "Elemwise{exp} [id A] ''   ",
        " |Elemwise{neg} [id B] ''   ",
        "   |x [id C]",
    ]
    assert seen[-1][2][0] == [1.0] and seen[0][3] is None


def test_a_monitor_is_told_what_runs_and_of_what() -> None:
    @tcc.as_op(itypes=[T.dvector], otypes=[T.dvector])
    def twice(v: Any) -> Any:
        return v * 2

    ran: list[Any] = []
    monitor = MonitorMode(lambda i, node, fn: ran.append((str(node), node.op)))
    tcc.function([x], twice(5 * T.exp(x)), mode=monitor)([0.0])
    texts, ops = zip(*(r for r in ran if "broadcast" not in r[0]))
    assert texts[0] == "Elemwise{exp}(x)" and texts[-1] == "FromFunctionOp{twice}(Elemwise{mul}.0)"
    assert ops[0] == T.exp and ops[0] != T.log and ops[-1] == twice


def test_debug_mode_compares_with_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    w = tcc.shared(np.ones(2), "w")
    f = tcc.function([x], T.exp(x).sum(), updates=[(w, w + x)], mode=DebugMode())
    assert f([0.0, 0.0]) == 2.0
    f([1.0, 2.0])
    np.testing.assert_array_equal(w.get_value(), [2, 3])
    monkeypatch.setattr(
        "tcc.ir.interpret.Frame.checked", lambda self, op, value, result: np.asarray(result) + 1
    )
    with pytest.raises(BadOptimization, match="output 0"):
        f([1.0, 2.0])
    np.testing.assert_array_equal(w.get_value(), [2, 3])


def test_debug_mode_looks_for_what_is_not_finite() -> None:
    f = tcc.function([x], T.log(x), mode=DebugMode(check_isfinite=True))
    with pytest.raises(InvalidValueError, match="Inf detected"):
        f([0.0])


def test_ops_equal_the_functions_that_apply_them() -> None:
    m = T.dmatrix("m")
    for function, made in {
        T.exp: T.exp(m),
        T.add: m + 1,
        T.switch: T.switch(m > 0, m, 0),
        T.nnet.sigmoid: T.nnet.sigmoid(m),
        T.nlinalg.matrix_inverse: T.nlinalg.matrix_inverse(m),
    }.items():
        op = made.owner.op
        assert op == function and function == op and {function: 1}[op] == 1
        assert op != T.log and op != "exp"
