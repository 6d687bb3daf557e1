"""Operations that can fail: what is said when one does, and what is certain to fail for known sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tcc.ir.builder import Builder
from tcc.ir.core import Block, Func, Op
from tcc.ir.dims import size_error
from tcc.ir.types import Type
from tcc.runtime.callable import Failure


def refuse_certain_failures(func: Func) -> None:
    """Raises what a check would raise that fails for these very sizes: behind it the types contradict each other.

    A branch in which a check fails so is cut off there, for it may never be taken.
    """
    _refuse(func.body)


def _refuse(block: Block) -> None:
    for op in block.ops:
        if op.name == "ifelse":
            for branch in op.blocks:
                _cut(branch, [r.type for r in op.results])
            continue
        for inner in op.blocks:
            _refuse(inner)
        error = certain_failure(op)
        if error is not None:
            raise error


def _cut(branch: Block, types: Sequence[Type]) -> None:
    """Behind a check that is certain to fail in it a branch yields anything of its types."""
    ops = list(branch.ops)
    first = next((k for k, op in enumerate(ops) if certain_failure(op) is not None), None)
    if first is None:
        _refuse(branch)
        return
    for op in reversed(ops[first + 1 :]):
        op.erase()
    b = Builder(branch)
    b.op("yield", *(b.const(0, t) for t in types))


def certain_failure(op: Op) -> Exception | None:
    """What a check raises that fails for these very sizes."""
    if op.name == "check_size":
        left, right = op.attrs["left"], op.attrs["right"]
        if isinstance(left, int) and isinstance(right, int) and left != right:
            return failure(failure_record(op))(left, right, 0, 0)
    elif op.name == "check_index":
        made, bound = op.operands[0].op, op.attrs["bound"]
        at = made.attrs["value"] if made is not None and made.name in ("size", "const") else None
        if isinstance(at, int) and isinstance(bound, int) and not -bound <= at < bound:
            return failure(failure_record(op))(at, bound, 0, 0)
    return None


def failure_record(op: Any) -> dict[str, str]:
    """What a message about an op that can fail needs."""
    record = {"op": op.name, "loc": op.loc}
    if op.name == "check_size":
        record |= {k: str(op.attrs[k]) for k in ("left", "right", "message")}
    if op.name == "check_sparse":
        record["message"] = f"sparse: {op.attrs['message']}"
    if op.name == "check_pivots":
        record |= {k: str(op.attrs[k]) for k in ("message", "of")}
        record["batch"] = " of matrix number" if op.operands[0].type.rank else ""
    if op.name == "bind":
        record["size"] = str(op.attrs["size"])
    if op.name == "check_index":
        record["bound"] = str(op.attrs["bound"])
        record["of"] = f" of {op.operands[0].name}" if op.operands[0].op is None else ""
    return record


def _side(size: str, number: int) -> str:
    return size if size == str(number) else f"{size} = {number}"


def failure(record: Mapping[str, str]) -> Failure:
    """The exception for an op's failure, made from the integers of the error record."""
    where = f"\nwritten at {record['loc']}" if record["loc"] else ""

    def make(a: int, b: int, c: int, d: int) -> Exception:
        if record["op"] == "check_index":
            which = f"index number {c}{record['of']}"
            return IndexError(f"index {a} is out of bounds for an axis of size {b} ({which}){where}")
        if record["op"] == "check_size":
            sides = " against ".join(_side(record[k], n) for k, n in (("left", a), ("right", b)))
            if a == b:
                sides = f"{record['left']} against {record['right']}, which do not fit into 64 bits"
            return size_error(f"{record['message']} ({sides}){where}")
        if record["op"] == "check_pivots":
            which = f"pivot {a}" + (f"{record['batch']} {c}" if record["batch"] else "")
            return np.linalg.LinAlgError(f"{record['message']} ({which})\nin {record['of']}{where}")
        if record["op"] == "check_sparse":
            return ValueError(f"{record['message']}{where}")
        if record["op"] == "bind":
            return ValueError(f"a size must not be negative, got {a}{where}")
        return RuntimeError(f"{record['op']} failed with {(a, b, c, d)}{where}")

    return make
