"""What a compile gives: code and all that running it takes, which the cache keeps as bytes.

The cache's key is the function's text without the places of the user's program; messages name them, so what is kept has numbers in their place.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.failures import failure
from tcc.ir.core import Func
from tcc.ir.dims import Size, parse_size
from tcc.ir.text import print_func
from tcc.ir.types import FROM_NUMPY, itemsize, memory_dtype, parse_type
from tcc.runtime.arenas import Claim
from tcc.runtime.buffers import Container, aligned
from tcc.runtime.callable import Variant
from tcc.runtime.host import HostCall
from tcc.runtime.panels import KeptSpec, Layout, kept
from tcc.runtime.signature import InputSpec, OutputSpec, SharedSpec, Signature

Array = np.ndarray[Any, Any]


@dataclass
class Artefact:
    """Everything that running a compiled function takes; `pack` and `unpack` carry it through the cache."""

    code: Sequence[bytes]
    entry: str
    engines: dict[str, str]
    forms: dict[str, frozenset[int]]  # of products, by dtype
    signature: Signature
    constants: list[Array]
    failures: dict[int, dict[str, str]]
    claims: list[Claim]
    host_calls: Sequence[HostCall] = ()

    def variant(self, containers: Mapping[str, Container], name: str) -> Variant:
        """The code in memory, bound to its containers."""
        from tcc.codegen.image import Compiled, load
        from tcc.codegen.target import chosen

        image, entry = load(Compiled(self.code, self.entry, self.engines, self.forms), chosen())
        own = [
            containers[s.name]
            for s in self.signature.shared[: len(self.signature.shared) - len(self.constants)]
        ]
        return Variant(
            self.signature,
            entry,
            image,
            containers=[*own, *(Container(c, borrow=True) for c in self.constants)],
            panels=[kept(own[spec.source], spec.layout, spec.width) for spec in self.signature.kept],
            failures={number: failure(record) for number, record in self.failures.items()},
            host_calls=self.host_calls,
            claims=self.claims,
        )

    def pack(self, locs: Sequence[str]) -> bytes:
        """As bytes, with the user's places in `locs` by their numbers."""
        s = self.signature
        head = {
            "entry": self.entry,
            "engines": self.engines,
            "forms": {dtype: sorted(forms) for dtype, forms in self.forms.items()},
            "inputs": [[i.dtype, list(map(str, i.shape)), i.name] for i in s.inputs],
            "shared": [[i.dtype, list(map(str, i.shape)), i.written, i.name, i.constant] for i in s.shared],
            "outputs": [[o.dtype, list(map(str, o.shape)), o.late, o.adopt] for o in s.outputs],
            "returns": s.returns,
            "sizes": [str(s.arena), str(s.scratch), str(s.work)],
            "late": s.late,
            "kept": s.kept,
            "claims": [[c.purpose, None if c.bytes is None else str(c.bytes)] for c in self.claims],
            "constants": [f"{_dtype_name(c)}[{','.join(map(str, c.shape))}]" for c in self.constants],
            "failures": self.failures,
            "code": list(map(len, self.code)),
        }
        text = places_for_numbers(json.dumps(head), locs).encode()
        return (
            struct.pack("<q", len(text))
            + text
            + b"".join([*self.code, *(c.tobytes() for c in self.constants)])
        )

    @classmethod
    def unpack(cls, data: bytes, locs: Sequence[str]) -> Artefact:
        """What `pack` made of equal IR, which may stand at other places of the user's program."""
        (length,) = struct.unpack_from("<q", data)
        text = data[8 : 8 + length].decode()
        head = json.loads(places_from_numbers(text, locs))
        at = 8 + length
        code: list[bytes] = []
        for size in head["code"]:
            code.append(data[at : at + size])
            at += size
        constants: list[Array] = []
        for text in head["constants"]:
            t = parse_type(text)
            shape = [int(str(n)) for n in t.shape]
            count = int(np.prod(shape, dtype=np.int64))
            constants.append(aligned(np.frombuffer(data, memory_dtype(t.dtype), count, at).reshape(shape)))
            at += count * itemsize(t.dtype)
        arena, scratch, work = (parse_size(t) for t in head["sizes"])
        signature = Signature(
            tuple(InputSpec(d, _shape(s), name=n) for d, s, n in head["inputs"]),
            tuple(SharedSpec(d, _shape(s), *more) for d, s, *more in head["shared"]),
            tuple(OutputSpec(d, _shape(s), late, adopt) for d, s, late, adopt in head["outputs"]),
            head["returns"],
            arena,
            scratch,
            work,
            head["late"],
            tuple(KeptSpec(source, Layout(*layout), width) for source, layout, width in head["kept"]),
        )
        failures = {int(k): v for k, v in head["failures"].items()}
        claims = [Claim(p, None if b is None else parse_size(b)) for p, b in head["claims"]]
        forms = {dtype: frozenset(found) for dtype, found in head["forms"].items()}
        return cls(code, head["entry"], head["engines"], forms, signature, constants, failures, claims)


_PLACE = re.compile(r"<place (\d+)>")
_LOC = re.compile(r' loc ("(?:[^"\\]|\\.)*")')


def without_places(func: Func) -> tuple[str, list[str]]:
    """The text of a function as the cache's key wants it, without names and lines of the user's program, and these lines.

    A guess at sizes, and the reasons why sizes are equal, are left out too: they change no result.
    """
    attrs = {k: v for k, v in func.attrs.items() if k not in ("why", "hints")}
    locs: dict[str, int] = {}
    bare = Func("f", func.body, attrs)
    text = _LOC.sub(lambda m: f" loc {locs.setdefault(json.loads(m[1]), len(locs))}", print_func(bare))
    func.body.parent = func
    return text, list(locs)


def places_for_numbers(text: str, locs: Sequence[str]) -> str:
    """JSON in which places of the user's program are their numbers in `locs`."""
    for loc in sorted(filter(None, locs), key=len, reverse=True):
        text = text.replace(json.dumps(loc)[1:-1], f"<place {locs.index(loc)}>")
    return text


def places_from_numbers(text: str, locs: Sequence[str]) -> str:
    return _PLACE.sub(lambda m: json.dumps(locs[int(m[1])])[1:-1], text)


def _dtype_name(array: Array) -> str:
    return FROM_NUMPY[array.dtype.name]


def _shape(texts: Sequence[str]) -> tuple[Size, ...]:
    return tuple(parse_size(t) for t in texts)
