"""The bundle's file: the same bytes each time, and nothing read that was not written so."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tcc.ir import safetensors
from tcc.ir.safetensors import tensor
from tcc.runtime import bundle
from tcc.runtime.bundle import BundleError, Member, NewerBundle
from tcc.runtime.manifest import Array, Entry, Manifest

STATE = {"w": tensor(np.arange(6, dtype="f4").reshape(2, 3)), "n": tensor(np.array(3, "i1"))}
RECORDS = bundle.records(STATE)
MANIFEST = Manifest(
    "m",
    "0.1.0",
    "",
    (Entry("f", (Array("x", "f32", ("n",)),), (Array("y", "f32", ("n",)),), ("w",)),),
    tuple(RECORDS[n] for n in STATE),
)
MEMBERS = [
    Member("model.tcir", "tcir", b"func @f() -> () {\n  yield\n}\n"),
    Member("weights.safetensors", "weights", b"".join(safetensors.encode(STATE))),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bundle.write(tmp_path / "m.tcb", MANIFEST, MEMBERS)
    return tmp_path / "m.tcb"


def test_it_is_read_back_and_its_weights_lie_aligned(path: Path) -> None:
    got = bundle.read(path)
    assert list(got.members) == ["manifest.json", "model.tcir", "weights.safetensors"]
    assert got.manifest.entries == MANIFEST.entries and got.manifest.file("tcir")
    np.testing.assert_array_equal(got.tensors["w"].array, STATE["w"].array)
    assert got.tensors["w"].array.flags.aligned
    assert [p.name for p in path.parent.iterdir()] == ["m.tcb"]


def test_it_is_a_zip_file_to_others(path: Path) -> None:
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        assert z.read("model.tcir") == MEMBERS[0].data
        assert {i.date_time for i in z.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_equal_models_are_equal_bytes(path: Path) -> None:
    assert b"".join(bundle.encode(MANIFEST, MEMBERS)) == path.read_bytes()


def test_every_prefix_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError, match="m.tcb: (cut off|not a bundle|spoiled)"):
            bundle.read(path)


def test_every_flipped_bit_is_refused(path: Path) -> None:
    """Of every byte one bit: no byte of the file is without meaning."""
    whole = path.read_bytes()
    rng = random.Random(0)
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(BundleError, match="m.tcb: "):
            bundle.read(path)


def test_what_stands_before_or_behind_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for data in (b"#!/bin/sh\n" + whole, whole + b"\0", whole + whole):
        path.write_bytes(data)
        with pytest.raises(BundleError, match="m.tcb: (cut off|not a bundle|spoiled)"):
            bundle.read(path)


def others(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A zip file as another program writes it."""
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, data in members.items():
            z.writestr(name, data)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", "C:\\x", "a\\..\\b", ".hidden", "x\ny"])
def test_members_that_escape_their_folder_are_refused(path: Path, name: str) -> None:
    others(path, {name: b"x"})
    with pytest.raises(BundleError, match="refused: a member is called .*, which is no plain file name"):
        bundle.read(path)


def test_a_zip_bomb_is_refused(path: Path) -> None:
    others(path, {"manifest.json": b"\0" * (1 << 22)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="refused: manifest.json is compressed"):
        bundle.read(path)


def test_members_of_one_name_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as z, pytest.warns(UserWarning, match="Duplicate"):
        z.writestr("manifest.json", "{}")
        z.writestr("manifest.json", "{}")
    with pytest.raises(BundleError, match="refused: it has two members called manifest.json"):
        bundle.read(path)


def test_a_foreign_zip_file_is_refused(path: Path) -> None:
    others(path, {"word.xml": b"x"})
    with pytest.raises(BundleError, match="spoiled: word.xml does not stand where a bundle's member does"):
        bundle.read(path)


def test_other_files_are_refused(path: Path) -> None:
    for data in (b"", b"PK", b"\x7fELF", bytes(io.BytesIO().getvalue()), b"PK\3\4" + b"\0" * 100):
        path.write_bytes(data)
        with pytest.raises(BundleError, match="m.tcb: (cut off|not a bundle|spoiled)"):
            bundle.read(path)
    with pytest.raises(FileNotFoundError):
        bundle.read(path.with_name("none.tcb"))


def with_manifest(change: Callable[[bytes], bytes]) -> bytes:
    """A whole bundle whose manifest is other text, with all checksums in order."""
    parts = bundle.encode(MANIFEST, MEMBERS)
    contents = {"manifest.json": change(parts[1])} | {m.name: m.data for m in MEMBERS}
    heads, tail = bundle._layout([(n, len(d), zlib.crc32(d)) for n, d in contents.items()])
    return b"".join(p for h, d in zip(heads, contents.values()) for p in (h, d)) + tail


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b'"format": 1', b'"format": 2', "format 2, and this is tcc for formats up to 1: it was written by a newer tcc, 0.1.0"),
        (b'"model.tcir"', b'"other.tcir"', "are not those that its manifest lists"),
        (b'"bytes": 24', b'"bytes": 23', "manifest.json: state.0.: got 23, wanted 24 bytes for f32"),
        (b'"f32"', b'"f31"', "wanted one of"),
        (b"{", b"[", "not JSON"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_newer_or_wrong_is_refused(
    path: Path, old: bytes, new: bytes, message: str
) -> None:
    path.write_bytes(with_manifest(lambda text: text.replace(old, new, 1)))
    with pytest.raises(NewerBundle if b"format" in old else BundleError, match=message):
        bundle.read(path)


def test_weights_that_are_not_those_listed_are_refused(path: Path) -> None:
    for other, message in (
        ({"w": STATE["w"]}, "n is not there as i8"),
        ({**STATE, "v": STATE["n"]}, "holds 3 tensors, and the manifest lists 2"),
        ({**STATE, "w": tensor(np.zeros((3, 2), "f4"))}, "w is not there as f32.2, 3. at 0"),
    ):
        data = b"".join(safetensors.encode(other))
        bundle.write(path, MANIFEST, [MEMBERS[0], Member("weights.safetensors", "weights", data)])
        with pytest.raises(BundleError, match=message):
            bundle.read(path).tensors  # noqa: B018


def test_a_bundle_of_more_than_four_gigabytes_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_LARGEST", 100)
    with pytest.raises(BundleError, match="larger than 4 GB; .* of their own: `tcc compile .* separate`"):
        bundle.write(path, MANIFEST, MEMBERS)


def test_sizes_beyond_the_file_are_refused(path: Path) -> None:
    """A central list that says more than there is, with its own arithmetic in order."""
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    struct.pack_into("<2I", data, start + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    path.write_bytes(data)
    with pytest.raises(BundleError, match="spoiled: its members are said to be larger than the file"):
        bundle.read(path)


def test_mutations_are_refused(path: Path) -> None:
    rng = random.Random(1)
    whole = path.read_bytes()
    for _ in range(500):
        data = bytearray(whole)
        at, n = rng.randrange(len(data)), rng.randint(1, 20)
        if rng.random() < 0.5:
            del data[at : at + n]
        else:
            data[at:at] = rng.randbytes(n)
        path.write_bytes(data)
        with pytest.raises(BundleError):
            bundle.read(path)
