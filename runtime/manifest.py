"""What a model's file says of itself: the typed, versioned schema behind `manifest.json` of a bundle and `NAME.json` beside a library.

`Manifest.to_json` writes it, always the same bytes for the same model; `from_json` reads it, believes nothing, and says what
is wrong and where.  FORMAT goes up whenever a field is added or means something else; every later version of tcc reads the
formats before its own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tcc.ir.dims import Size, names_of, parse_size
from tcc.ir.types import DTYPES, itemsize

FORMAT = 1
ABI = 1  # of the C functions that a library exports
LARGEST = 16 << 20  # bytes of JSON
RETURNS = ("array", "list", "dict")
ROLES = (
    "tcir",
    "weights",
    "shared",
    "static",
    "object",
    "header",
    "python",
    "javascript",
    "llvm-ir",
    "asm",
    "ptx",
)

T = TypeVar("T")
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CONSTANT = re.compile(r"[0-9a-f]{32}", re.ASCII)
_INT64 = (1 << 63) - 1
_MOST_RANK = 32  # of NumPy before version 2


class ManifestError(ValueError):
    """Text that is no manifest; the message names the field, what it has, and what was wanted."""


class NewerFormat(ManifestError):
    """A manifest of a later format than this version of tcc knows."""


def _need(fits: object, got: object, wanted: str) -> None:
    if not fits:
        raise ManifestError(f"got {got!r}, wanted {wanted}")


def is_symbol(name: str) -> bool:
    """Whether C, Python and the IR all take it as a name."""
    return _SYMBOL.fullmatch(name) is not None


def is_file_name(name: str) -> bool:
    """Whether it names a file in the same folder, wherever that is."""
    return _FILE.fullmatch(name) is not None


@dataclass(frozen=True)
class Range:
    """The values that a size may have; `most` None is without bound."""

    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        _need(0 <= self.least <= _INT64, self.least, "a size from 0 on")
        _need(
            self.most is None or self.least <= self.most <= _INT64, self.most, f"a size from {self.least} on"
        )


@dataclass(frozen=True)
class Array:
    """An argument or a result.  A size is a number, or text over names: `n`, `2*n+1`.  Strides are dense and row-major."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        _need(is_symbol(self.name), self.name, "a name of letters, digits and _")
        _need(self.dtype in DTYPES and self.dtype != "object", self.dtype, f"one of {', '.join(_dtypes())}")
        _need(len(self.shape) <= _MOST_RANK, len(self.shape), f"at most {_MOST_RANK} axes")
        self.sizes  # noqa: B018  (raises for a size that is none)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @functools.cached_property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(map(_size, self.shape))


def _dtypes() -> list[str]:
    return [d for d in DTYPES if d != "object"]


def _size(text: int | str) -> Size:
    if isinstance(text, str):
        _need(len(text) <= 1000, f"{text[:20]}...", "a size of at most 1000 characters")
        try:
            size = parse_size(text)
        except (ValueError, RecursionError) as e:
            raise ManifestError(f"got {text!r}, wanted a size such as 784 or n ({e})") from None
        _need(str(size) == text and not isinstance(size, int), text, f"a size as tcc writes it, {size}")
        return size
    _need(0 <= text <= _INT64, text, "a size from 0 on")
    return text


@dataclass(frozen=True)
class Tensor:
    """A state variable, or a constant named by its content, whose bytes lie at `offset` in the data of the weights file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _need(
            is_symbol(self.name) or _CONSTANT.fullmatch(self.name),
            self.name,
            "a name of letters, digits and _",
        )
        _need(self.dtype in DTYPES and self.dtype != "object", self.dtype, f"one of {', '.join(_dtypes())}")
        _need(len(self.shape) <= _MOST_RANK, len(self.shape), f"at most {_MOST_RANK} axes")
        _need(all(0 <= s <= _INT64 for s in self.shape), list(self.shape), "sizes from 0 on")
        _need(0 <= self.offset <= _INT64, self.offset, "an offset from 0 on")
        wanted = math.prod(self.shape) * itemsize(self.dtype)
        _need(self.bytes == wanted, self.bytes, f"{wanted} bytes for {self.dtype}{list(self.shape)}")
        _need(_HASH.fullmatch(self.sha256), self.sha256, "64 hexadecimal digits")


@dataclass(frozen=True)
class Entry:
    """One function.  `reads` names the state that it takes, `updates` what it writes; `sizes` the ranges of size names.

    A size name in a result's shape that no argument and no state gives depends on data; its range bounds it.
    `returns` says what Python gets: the one array, a list, or a dict by the results' names.
    """

    name: str
    arguments: tuple[Array, ...]
    results: tuple[Array, ...]
    reads: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()
    sizes: Mapping[str, Range] = field(default_factory=dict)
    returns: str = "list"

    def __post_init__(self) -> None:
        _need(is_symbol(self.name), self.name, "a name of letters, digits and _")
        _once("arguments", [a.name for a in self.arguments])
        _once("results", [a.name for a in self.results])
        _once("reads", self.reads)
        _once("updates", self.updates)
        _need(self.returns in RETURNS, self.returns, f"one of {', '.join(RETURNS)}")
        _need(
            self.returns != "array" or len(self.results) == 1,
            self.returns,
            "list or dict, for it has not one result",
        )
        unread = [u for u in self.updates if u not in self.reads]
        _need(not unread, unread, "updates of what `reads` names")
        known = {n for a in (*self.arguments, *self.results) for s in a.sizes for n in names_of(s)}
        unknown = sorted(set(self.sizes) - known)
        _need(
            not unknown, unknown, f"ranges of sizes that shapes have ({', '.join(sorted(known)) or 'none'})"
        )


@dataclass(frozen=True)
class Target:
    """The machine that native code is for.  `features` are LLVM's names of what its CPU must have; `gpu` like sm_90."""

    triple: str
    cpu: str
    features: tuple[str, ...] = ()
    threads: int = 1
    gpu: str = ""

    def __post_init__(self) -> None:
        for text in (self.triple, self.cpu, self.gpu, *self.features):
            _need(text.isascii() and text.isprintable() and len(text) <= 200, text, "printable ASCII text")
        _need(1 <= self.threads <= 4096, self.threads, "a number of threads from 1 to 4096")


@dataclass(frozen=True)
class File:
    """A file beside the manifest, or a member of its bundle."""

    name: str
    role: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _need(is_file_name(self.name), self.name, "a plain file name, without folders")
        _need(self.role in ROLES, self.role, f"one of {', '.join(ROLES)}")
        _need(0 <= self.bytes <= _INT64, self.bytes, "a number of bytes")
        _need(_HASH.fullmatch(self.sha256), self.sha256, "64 hexadecimal digits")


@dataclass(frozen=True)
class Manifest:
    """A model: `name` prefixes its C symbols.  `numerics` are the settings that change results in their last digits."""

    name: str
    tcc: str
    llvm: str
    entries: tuple[Entry, ...]
    state: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    files: tuple[File, ...] = ()
    target: Target | None = None
    numerics: Mapping[str, str] = field(default_factory=dict)
    abi: int = ABI
    format: int = FORMAT

    def __post_init__(self) -> None:
        _need(is_symbol(self.name), self.name, "a name of letters, digits and _")
        _need(self.entries, 0, "at least one entry")
        _need(1 <= self.abi <= ABI, self.abi, f"an ABI version up to {ABI}")
        _once("entries", [e.name for e in self.entries])
        _once("state", [t.name for t in self.state])
        _once("constants", [t.name for t in self.constants])
        _once("files", [f.name for f in self.files])
        wrong = [t.name for t in self.state if not is_symbol(t.name)]
        wrong += [t.name for t in self.constants if not _CONSTANT.fullmatch(t.name)]
        _need(not wrong, wrong, "names for state, and 32 hexadecimal digits for constants")
        known = {t.name for t in self.state}
        for entry in self.entries:
            missing = [r for r in entry.reads if r not in known]
            _need(
                not missing,
                missing,
                f"state that the entry {entry.name} reads ({', '.join(sorted(known)) or 'none'})",
            )
        end = 0
        for t in sorted((*self.state, *self.constants), key=lambda t: (t.offset, t.bytes)):
            _need(t.offset >= end, t.offset, f"an offset of {t.name} from {end} on, behind the other tensors")
            end = t.offset + t.bytes

    def entry(self, name: str) -> Entry:
        """KeyError names those that there are."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(f"no entry {name} (there are {', '.join(e.name for e in self.entries)})")

    def file(self, role: str) -> File | None:
        """The first file of this role."""
        return next((f for f in self.files if f.role == role), None)

    def to_json(self) -> str:
        """Keys in the order of the fields, two spaces of indent: the same text for the same model."""
        head = {"format": self.format, "abi": self.abi}
        return json.dumps(head | _plain(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """ManifestError for whatever is not a manifest, NewerFormat for one that only a later tcc can read."""
        if len(text) > LARGEST:
            raise ManifestError(f"{len(text)} bytes, wanted at most {LARGEST}")
        try:
            source = text if isinstance(text, str) else text.decode()
            got = json.loads(source, object_pairs_hook=_object, parse_constant=_no_constant)
        except ManifestError:
            raise
        except (ValueError, RecursionError) as e:
            raise ManifestError(f"not JSON ({e})") from None
        _need(isinstance(got, dict), type(got).__name__, "an object")
        version = got.get("format")
        _need(type(version) is int and version >= 1, version, "a field `format`, a number from 1 on")
        if version > FORMAT:
            raise NewerFormat(
                f"format {version}, and this is tcc for formats up to {FORMAT}: it was written by a newer tcc, {str(got.get('tcc'))[:40]}"
            )
        made: Manifest = _read(Manifest, got, "")
        return made


def _once(what: str, names: typing.Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        _need(name not in seen, name, f"each name once in {what}")
        seen.add(name)


# -- JSON --------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in sorted(value.items())}
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once("an object", (k for k, _ in pairs))
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise ManifestError(f"got {text}, wanted a number")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, got: Any, where: str) -> Any:
    """`got` as a value of the annotated type `kind`; ManifestError names the field."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        plain = [k for k in inner if type(got) is k]
        rest = [k for k in inner if k is not type(None) and k not in (int, str)]
        if plain or not rest:
            _need_at(bool(plain), got, " or ".join(k.__name__ for k in inner), where)
            return got
        return _read(rest[0], got, where)
    if origin is tuple:
        _need_at(isinstance(got, list), got, "a list", where)
        return tuple(_read(inner[0], v, f"{where}[{i}]") for i, v in enumerate(got))
    if origin is Mapping:
        _need_at(isinstance(got, dict), got, "an object", where)
        return {k: _read(inner[1], v, f"{where}.{k}") for k, v in got.items()}
    if not dataclasses.is_dataclass(kind):
        _need_at(type(got) is kind, got, {int: "a whole number", str: "text"}[kind], where)
        return got
    _need_at(isinstance(got, dict), got, "an object", where)
    names = _hints(typing.cast(type, kind))
    _need_at(
        not (new := sorted(got.keys() - names.keys())), new[:3], f"only the fields {', '.join(names)}", where
    )
    _need_at(not (gone := [n for n in names if n not in got]), sorted(got), f"the field {gone[:1]}", where)
    read = {n: _read(k, got[n], f"{where}.{n}".lstrip(".")) for n, k in names.items()}
    try:
        return typing.cast(Any, kind)(**read)
    except ManifestError as e:
        raise ManifestError(f"{where}: {e}" if where else str(e)) from None


def _need_at(fits: bool, got: object, wanted: str, where: str) -> None:
    if not fits:
        shown = repr(got)
        raise ManifestError(f"{where or 'the manifest'}: got {shown[:80]}, wanted {wanted}")
