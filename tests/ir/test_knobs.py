from __future__ import annotations

from pathlib import Path

import pytest

from tcc.ir import knobs


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in knobs.TABLE:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("TCC_THREADS", "2", 2),
        ("TCC_THREADS", " ", None),
        ("TCC_CACHE", "0", False),
        ("TCC_CACHE_DIR", "~/x", Path.home() / "x"),
        ("TCC_CACHE_MB", "64", 64),
        ("TCC_FLAGS", "floatX=float32, device=cpu,", {"floatX": "float32", "device": "cpu"}),
        ("TCC_DUMP", "fuse, placed", frozenset({"fuse", "placed"})),
        ("TCC_VERIFY", "2", 2),
        ("TCC_SKIP", "cse", frozenset({"cse"})),
        ("TCC_TARGET", "plain", "plain"),
        ("TCC_TARGET", "x86-64-v3", "x86-64-v3"),
        ("TCC_VECTOR_BITS", "128", 128),
    ],
)
def test_a_setting_has_its_type(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(name, text)
    assert knobs.TABLE[name].get() == value


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("TCC_THREADS", "0", "TCC_THREADS must be a number from 1 to 256, got '0'"),
        ("TCC_THREADS", "²", "TCC_THREADS must be a number from 1 to 256, got '²'"),
        ("TCC_CACHE", "yes", "TCC_CACHE must be 0 or 1, got 'yes'"),
        (
            "TCC_CACHE_MB",
            "9" * 30,
            f"TCC_CACHE_MB must be a number of megabytes from 1 to 1048576, got '{'9' * 30}'",
        ),
        ("TCC_FLAGS", "floatX", "TCC_FLAGS must be like floatX=float32,device=cpu, got 'floatX'"),
        ("TCC_SKIP", "a b", "TCC_SKIP must be passes like fuse,cse, got 'a b'"),
        ("TCC_VECTOR_BITS", "64", "TCC_VECTOR_BITS must be 128, 256 or 512, got '64'"),
    ],
)
def test_nonsense_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(knobs.KnobError) as e:
        knobs.TABLE[name].get()
    assert str(e.value) == message


def test_settings_that_change_code_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knobs.code_key() == ""
    monkeypatch.setenv("TCC_VERIFY", "2")
    assert knobs.code_key() == ""
    monkeypatch.setenv("TCC_SKIP", "hoist,cse")
    monkeypatch.setenv("TCC_TARGET", "plain")
    assert knobs.code_key() == "TCC_SKIP=['cse', 'hoist'];TCC_TARGET=plain"
