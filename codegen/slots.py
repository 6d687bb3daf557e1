"""LLVM text that reads records of eight-byte slots (tcc.runtime.layout): `%name` is what a slot holds, `%name.at` its address."""

from __future__ import annotations

from tcc.runtime import layout as at


def field(name: str, record: str, slot: int, type: str = "i64") -> str:
    return (
        f"  %{name}.at = getelementptr i64, ptr {record}, i64 {slot}\n  %{name} = load {type}, ptr %{name}.at"
    )


def worker(index: str) -> str:
    """`%worker`, the record of one of `%pool`'s workers."""
    return f"""\
  %offset = mul i64 {index}, {at.WORKER_SLOTS}
  %slot = add i64 %offset, {at.POOL_WORKERS}
  %worker = getelementptr i64, ptr %pool, i64 %slot"""
