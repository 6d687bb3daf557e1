"""The bundle of a model: a zip of stored members, `manifest.json` first, that is the same bytes for the same model.

A reader takes what the writer makes and nothing else: it lays out what the file's own list of members says, and every byte
of every header must be as laid out.  So there is no room for members that overlap, escape, are compressed or hidden.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tcc.ir import safetensors
from tcc.ir.files import replacing
from tcc.ir.safetensors import Data, Tensor
from tcc.runtime.manifest import File, Manifest, ManifestError, NewerFormat, is_file_name
from tcc.runtime.manifest import Tensor as Record
from tcc.runtime.weights import WeightsError, mapped

MANIFEST, TEXT, WEIGHTS = "manifest.json", "model.tcir", "weights.safetensors"

_MOST_MEMBERS = 100
_LARGEST = (1 << 32) - (1 << 20)  # bytes of a zip file without its 64-bit extension
_ALIGN = 64  # of a member's data, for weights that are used where they lie
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_VERSION, _DATE = 20, 1 << 5 | 1  # zip 2.0; 1980-01-01, where the format's time begins
_PADDING = 0xD935  # the extra field that other tools align members with


class BundleError(ValueError):
    """A file that is no bundle, or a spoiled one; the message names the file and says what is wrong."""


class NewerBundle(BundleError):
    """A bundle that only a later tcc can read."""


class Member(NamedTuple):
    """A file of the bundle beside its manifest."""

    name: str
    role: str  # one of manifest.ROLES
    data: bytes


@dataclass(frozen=True)
class Bundle:
    """What a file holds; `members` share its memory."""

    path: Path
    manifest: Manifest
    members: Mapping[str, Data]
    whole: Data

    @functools.cached_property
    def sha256(self) -> str:
        """Of the whole file: what a trusted one is pinned by."""
        return hashlib.sha256(self.whole).hexdigest()

    @functools.cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """State and constants, as the manifest lists them; BundleError if they are not so."""
        listed = [*self.manifest.state, *self.manifest.constants]
        if not listed:
            return {}
        file = self.manifest.file("weights")
        if file is None:
            raise BundleError(f"{self.path}: its weights are in a file of their own, which it does not hold")
        try:
            found = safetensors.decode(self.members[file.name])
            require_listed(found, listed, file.name)
        except ValueError as e:
            raise BundleError(f"{self.path}: {file.name}: {e}") from None
        return found


def require_listed(found: Mapping[str, Tensor], listed: Sequence[Record], where: str) -> None:
    """WeightsError unless the tensors of a weights file are those of a manifest."""
    for record in listed:
        got = found.get(record.name)
        if got is None or (got.dtype, list(got.array.shape), got.offset) != (
            record.dtype,
            list(record.shape),
            record.offset,
        ):
            raise WeightsError(
                f"{record.name} is not there as {record.dtype}{list(record.shape)} at {record.offset}"
            )
    if len(found) != len(listed):
        raise WeightsError(f"{where} holds {len(found)} tensors, and the manifest lists {len(listed)}")


def records(tensors: Mapping[str, Tensor]) -> dict[str, Record]:
    """The manifest's table for tensors, as `safetensors.encode` lays them out."""
    return {
        name: Record(name, t.dtype, t.array.shape, t.offset, t.array.nbytes, _digest(t.array.tobytes()))
        for name, t in safetensors.placed(tensors).items()
    }


# -- writing -----------------------------------------------------------------------------------------------------


def encode(manifest: Manifest, members: Iterable[Member]) -> list[bytes]:
    """The parts of a bundle's file.  The manifest's table of files is made here.  BundleError if it would be too large."""
    members = list(members)
    files = tuple(File(m.name, m.role, len(m.data), _digest(m.data)) for m in members)
    text = dataclasses.replace(manifest, files=files).to_json().encode()
    contents = {MANIFEST: text} | {m.name: m.data for m in members}
    if len(contents) != 1 + len(members):
        raise BundleError(f"a member's name is given twice, or {MANIFEST}")
    heads, tail = _layout([(name, len(data), zlib.crc32(data)) for name, data in contents.items()])
    parts = [part for head, data in zip(heads, contents.values()) for part in (head, data)]
    if sum(map(len, parts)) + len(tail) > _LARGEST:
        raise BundleError(
            "the bundle would be larger than 4 GB; put the weights into a file of their own: "
            "`tcc compile --emit shared --weights separate`, or `tcc.save_weights`"
        )
    return [*parts, tail]


def write(path: Path, manifest: Manifest, members: Iterable[Member]) -> None:
    """Writes a bundle, whole or not at all."""
    parts = encode(manifest, members)
    with replacing(path) as file:
        file.writelines(parts)


def _digest(data: Data) -> str:
    return hashlib.sha256(data).hexdigest()


def _layout(members: Sequence[tuple[str, int, int]]) -> tuple[list[bytes], bytes]:
    """What stands before the data of each member (name, size, CRC), and what stands behind the last."""
    heads, central, at = [], b"", 0
    for name, size, crc in members:
        common = (_VERSION, 0, 0, 0, _DATE, crc, size, size, len(name))
        bare = at + _LOCAL.size + len(name) + 4
        extra = struct.pack("<2H", _PADDING, -bare % _ALIGN) + bytes(-bare % _ALIGN)
        heads.append(_LOCAL.pack(_LOCAL_MARK, *common, len(extra)) + name.encode() + extra)
        central += _CENTRAL.pack(_CENTRAL_MARK, _VERSION, *common, 0, 0, 0, 0, 0, at) + name.encode()
        at += len(heads[-1]) + size
    count = len(members)
    return heads, central + _END.pack(_END_MARK, 0, 0, count, count, len(central), at, 0)


# -- reading -----------------------------------------------------------------------------------------------------


def read(path: Path) -> Bundle:
    """The bundle in a file, all of it checked.  BundleError or NewerBundle; OSError when it cannot be read."""
    try:
        data = mapped(path)
        members = _members(data)
        manifest = Manifest.from_json(bytes(members[MANIFEST]))
        _require_files(manifest, members)
    except NewerFormat as e:
        raise NewerBundle(f"{path}: {e}") from None
    except ManifestError as e:
        raise BundleError(f"{path}: {MANIFEST}: {e}") from None
    except ValueError as e:
        hint = (
            f": tcc compile {path} --emit bundle makes one of it" if path.suffix in (".py", ".tcir") else ""
        )
        raise BundleError(f"{path}: {e}{hint}") from None
    return Bundle(path, manifest, members, data)


def _members(data: memoryview) -> dict[str, memoryview]:
    """The members by name, in their order; ValueError for anything that `encode` would not write so."""
    if data[:4] != _LOCAL_MARK:
        raise ValueError("not a bundle (it does not begin as one)")
    if len(data) < _END.size or data[-_END.size :][:4] != _END_MARK:
        raise ValueError("cut off, or followed by something that is not part of it")
    count, length, start = struct.unpack_from("<H2I", data, len(data) - _END.size + 10)
    if not 1 <= count <= _MOST_MEMBERS or start + length + _END.size != len(data):
        raise ValueError("spoiled: its list of members is not at its end")
    found = _listed(data[start : start + length], count)
    if sum(size for _, size, _ in found) > start:
        raise ValueError("spoiled: its members are said to be larger than the file")
    heads, tail = _layout(found)
    members: dict[str, memoryview] = {}
    at = 0
    for head, (name, size, crc) in zip(heads, found):
        begin = at + len(head)
        if data[at:begin] != head or begin + size > start:
            raise ValueError(f"spoiled: {name} does not stand where a bundle's member does")
        members[name] = data[begin : begin + size]
        if zlib.crc32(members[name]) != crc:
            raise ValueError(f"spoiled: {name} has changed since it was written")
        at = begin + size
    if data[at:] != tail:
        raise ValueError("spoiled: its list of members is not as it was written")
    if next(iter(members)) != MANIFEST:
        raise ValueError(f"not a bundle (its first member is not {MANIFEST})")
    return members


def _listed(central: memoryview, count: int) -> list[tuple[str, int, int]]:
    """(name, size, CRC) of each member."""
    found: dict[str, tuple[str, int, int]] = {}
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(central):
            raise ValueError("spoiled: its list of members is cut off")
        fields = _CENTRAL.unpack_from(central, at)
        method, crc, packed, size, length = fields[4], *fields[7:11]
        name = bytes(central[at + _CENTRAL.size :][:length]).decode("ascii", "backslashreplace")
        if not is_file_name(name):
            raise ValueError(f"refused: a member is called {name[:80]!r}, which is no plain file name")
        if name in found:
            raise ValueError(f"refused: it has two members called {name}")
        if method or packed != size:
            raise ValueError(f"refused: {name} is compressed, and a bundle stores its members as they are")
        found[name] = name, size, crc
        at += _CENTRAL.size + length
    return list(found.values())


def _require_files(manifest: Manifest, members: Mapping[str, memoryview]) -> None:
    listed = {f.name: f for f in manifest.files}
    if [MANIFEST, *listed] != list(members):
        raise ValueError(f"its members, {', '.join(members)}, are not those that its manifest lists")
    for name, file in listed.items():
        if len(members[name]) != file.bytes or _digest(members[name]) != file.sha256:
            raise ValueError(f"spoiled: {name} is not what the manifest says (SHA-256)")
