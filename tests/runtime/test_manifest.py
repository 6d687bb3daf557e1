"""What a model's file says of itself: read back as it was written, and refused in plain words when it is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tcc.runtime.manifest import (
    FORMAT,
    Array,
    Entry,
    File,
    Manifest,
    ManifestError,
    NewerFormat,
    Range,
    Target,
    Tensor,
)

HASH = "0" * 64
MLP = Manifest(
    "mlp",
    "0.1.0",
    "20.1.8",
    (
        Entry(
            "predict",
            (Array("x", "f32", ("n", 784)),),
            (Array("y", "f32", ("n", 10)),),
            ("w",),
            (),
            {"n": Range(1, 1024)},
            "array",
        ),
        Entry("step", (Array("x", "f32", ("2*n+1", 784)),), (), ("w",), ("w",), {"n": Range()}),
    ),
    (Tensor("w", "f32", (784, 10), 0, 31360, HASH),),
    (Tensor("ab" * 16, "i8", (3,), 31360, 3, HASH),),
    (File("model.tcir", "tcir", 100, HASH), File("libmlp.so", "shared", 20000, HASH)),
    Target("x86_64-unknown-linux-gnu", "x86-64-v3", ("avx2", "fma"), 4),
    {"strength": "stable"},
)


def test_it_is_read_back_as_it_was_written() -> None:
    text = MLP.to_json()
    assert Manifest.from_json(text) == MLP == Manifest.from_json(text.encode())
    assert Manifest.from_json(text).to_json() == text
    assert MLP.entry("step").arguments[0].rank == 2
    assert MLP.file("shared") == MLP.files[1]
    assert MLP.file("header") is None


def test_a_missing_entry_is_named() -> None:
    with pytest.raises(KeyError, match="no entry train .there are predict, step."):
        MLP.entry("train")


def changed(change: Callable[[Any], Any]) -> str:
    got = json.loads(MLP.to_json())
    change(got)
    return json.dumps(got)


def put(path: str, value: object) -> Callable[[Any], Any]:
    """Sets `a.0.b` to a value."""

    def change(got: Any) -> None:
        *front, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for p in front:
            got = got[p]
        got[last] = value

    return change


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("entries.0.arguments.0.dtype", "f33", r"entries\[0\].arguments\[0\]: got 'f33', wanted one of bool"),
        ("entries.0.arguments.0.dtype", "object", "wanted one of"),
        ("entries.0.arguments.0.name", "x-y", "wanted a name of letters"),
        ("entries.0.arguments.0.name", "x\n", "wanted a name of letters"),
        ("entries.0.arguments.0.name", 3, r"entries\[0\].arguments\[0\].name: got 3, wanted text"),
        ("entries.0.arguments.0.shape.1", -1, "wanted a size from 0 on"),
        ("entries.0.arguments.0.shape.1", True, "got True, wanted int or str"),
        ("entries.0.arguments.0.shape.1", 1.5, "got 1.5, wanted int or str"),
        ("entries.0.arguments.0.shape.0", "n+", "wanted a size such as 784 or n"),
        ("entries.0.arguments.0.shape.0", "n + 0", "wanted a size as tcc writes it, n"),
        ("entries.0.arguments.0.shape.0", "*".join(["(a+b+c+d)"] * 90), "wanted a size"),
        ("entries.0.arguments.0.shape.0", "(" * 900, "wanted a size"),
        ("entries.0.arguments.0.shape", [1] * 33, "at most 32 axes"),
        ("entries.0.arguments", {}, "wanted a list"),
        ("entries.0.sizes", {"m": {"least": 0, "most": None}}, "wanted ranges of sizes that shapes have"),
        ("entries.0.sizes.n", {"least": 5, "most": 4}, "wanted a size from 5 on"),
        ("entries.0.returns", "tuple", "wanted one of array, list, dict"),
        ("entries.1.returns", "array", "for it has not one result"),
        ("entries.1.reads", [], "wanted updates of what `reads` names"),
        ("entries.1.reads", ["w", "v"], "wanted state that the entry step reads"),
        ("entries.1.name", "predict", "wanted each name once in entries"),
        ("entries", [], "wanted at least one entry"),
        ("state.0.bytes", 5, "wanted 31360 bytes for f32"),
        ("state.0.offset", -8, "wanted an offset from 0 on"),
        ("state.0.offset", 2, "behind the other tensors"),
        ("state.0.shape.0", 1 << 62, "got 31360, wanted"),
        ("state.0.sha256", "xyz", "wanted 64 hexadecimal digits"),
        ("state.0.name", "ab" * 16, "wanted state that"),
        ("constants.0.name", "w", "32 hexadecimal digits for constants"),
        ("files.0.name", "../model.tcir", "wanted a plain file name"),
        ("files.0.name", "/etc/passwd", "wanted a plain file name"),
        ("files.0.name", "..", "wanted a plain file name"),
        ("files.0.name", "a\x00", "wanted a plain file name"),
        ("files.0.role", "exe file", "wanted one of tcir"),
        ("target.threads", 0, "a number of threads"),
        ("target.triple", "x\n", "printable"),
        ("target", 7, "target: got 7, wanted an object"),
        ("numerics.strength", 1, "numerics.strength: got 1, wanted text"),
        ("abi", 99, "an ABI version up to"),
        ("format", "1", "a field `format`"),
        ("format", True, "a field `format`"),
        ("added", 1, r"the manifest: got \['added'\], wanted only the fields"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(changed(put(path, value)))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ManifestError, match="wanted the field .'numerics'."):
        Manifest.from_json(changed(lambda got: got.pop("numerics")))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "not JSON"),
        ("[]", "got 'list', wanted an object"),
        ("[" * 100_000, "not JSON"),
        ('{"format": 1, "format": 1}', "each name once in an object"),
        ('{"format": NaN}', "got NaN"),
        ('{"format": ' + "9" * 5000 + "}", "not JSON"),
        (b"\xff", "not JSON"),
        (" " * (17 << 20), "wanted at most"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(text)


def test_a_newer_format_is_refused_with_who_wrote_it() -> None:
    text = changed(put("format", FORMAT + 1)).replace('"0.1.0"', '"9.0"')
    with pytest.raises(NewerFormat, match=f"format {FORMAT + 1}.*written by a newer tcc, 9.0"):
        Manifest.from_json(text)


def test_mutations_are_read_or_refused() -> None:
    """Bytes changed at random: whatever is read still is a manifest that writes and reads back."""
    rng = random.Random(6)
    text = MLP.to_json().encode()
    for _ in range(2000):
        data = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.randrange(256)
            else:
                del data[at : at + rng.randint(1, 40)]
        try:
            got = Manifest.from_json(bytes(data))
        except ManifestError:
            continue
        assert Manifest.from_json(got.to_json()) == got


def test_a_manifest_is_checked_when_it_is_made() -> None:
    with pytest.raises(ManifestError, match="each name once in files"):
        replace(MLP, files=(MLP.files[0], MLP.files[0]))
