"""A program for a device with what its failures say, and how the cache carries both."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.artefact import places_for_numbers, places_from_numbers
from tcc.failures import failure, failure_record
from tcc.ir import dims
from tcc.runtime import signature
from tcc.runtime.buffers import Container
from tcc.runtime.device_function import DeviceVariant
from tcc.runtime.device_program import (
    Address,
    Allocate,
    Buffer,
    CheckSize,
    CheckStatus,
    Copy,
    DeviceCall,
    DeviceKernel,
    DeviceProgram,
    HostSize,
    HostStep,
    IfElse,
    Launch,
    Loop,
    ReadSize,
    TensorMap,
)

_RECORDS = {
    r.__name__: r
    for r in (
        DeviceKernel, Buffer, Address, TensorMap, Launch, Copy, Allocate, ReadSize, HostSize,
        CheckSize, CheckStatus, Loop, IfElse, signature.Signature, signature.InputSpec,
        signature.SharedSpec, signature.OutputSpec,
    )
}  # fmt: skip


@dataclass
class DeviceCode:
    """What a function is compiled to for a device.  One with steps of the host, which are Python's, is not kept."""

    program: DeviceProgram
    failures: Mapping[int, Mapping[str, str]]

    @classmethod
    def of(cls, program: DeviceProgram) -> DeviceCode:
        return cls(program, {number: failure_record(op) for number, op in program.ops.items()})

    @property
    def can_be_kept(self) -> bool:
        return not any(isinstance(s, HostStep | DeviceCall) for s in self.program.walk())

    def variant(self, containers: Mapping[str, Container], device: Any) -> DeviceVariant:
        failures = {number: failure(record) for number, record in self.failures.items()}
        own = [containers[s.name] for s in self.program.signature.shared]
        return DeviceVariant(self.program, device, own, failures)

    def pack(self, locs: Sequence[str]) -> bytes:
        """As bytes, with the user's places in `locs` by their numbers."""
        p = self.program
        head = {
            "kernels": [_plain(k) for k in p.kernels.values()],
            "program": _plain((p.buffers, p.steps, p.signature, p.host_sizes)),
            "failures": dict(self.failures),
            "constants": [[c.dtype.str, list(c.shape)] for c in p.constants],
        }
        text = places_for_numbers(json.dumps(head), locs).encode()
        return struct.pack("<q", len(text)) + text + b"".join(c.tobytes() for c in p.constants)

    @classmethod
    def unpack(cls, data: bytes, locs: Sequence[str]) -> DeviceCode:
        """What `pack` made of equal IR, which may stand at other places of the user's program."""
        (length,) = struct.unpack_from("<q", data)
        head = json.loads(places_from_numbers(data[8 : 8 + length].decode(), locs))
        at, constants = 8 + length, []
        for dtype, shape in head["constants"]:
            count = int(np.prod(shape, dtype=np.int64))
            constants.append(np.frombuffer(data, dtype, count, at).reshape(shape).copy())
            at += constants[-1].nbytes
        kernels = {k.name: k for k in map(_record, head["kernels"])}
        buffers, steps, own, early = _record(head["program"])
        program = DeviceProgram(kernels, buffers, steps, own, tuple(constants), host_sizes=early)
        return cls(program, {int(k): v for k, v in head["failures"].items()})


def _plain(value: Any) -> Any:
    """A record of a program as JSON has it."""
    if isinstance(value, dims.Expr):
        return {"size": str(value)}
    name = type(value).__name__
    if name in _RECORDS:
        fields = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value)]
        return {name: [_plain(getattr(value, f)) for f in fields]}
    if not isinstance(value, tuple):
        return value
    if hasattr(value, "_fields"):
        raise TypeError(f"{name} is not among the records of programs")
    return [_plain(v) for v in value]


def _record(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_record, value))
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    return dims.parse_size(inner) if name == "size" else _RECORDS[name](*map(_record, inner))
