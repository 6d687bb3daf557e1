"""The module of what compiled functions call at run time: the pool (codegen/pool.py), errors, memory of late sizes
(codegen/late.py), containers (codegen/containers.py), and the way to Python (codegen/to_python.py).

It is compiled once per process or found in the cache, and holds no address of this process: those come through the
API table and through symbols, so the object code is the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tcc.codegen.containers import containers_text
from tcc.codegen.jit import Image, compile_object
from tcc.codegen.keys import cache_key
from tcc.codegen.late import late_text
from tcc.codegen.pool import pool_text
from tcc.codegen.target import Target, host
from tcc.codegen.to_python import python_text
from tcc.codegen.workers import CLOCK_MONOTONIC_COARSE, clock_text
from tcc.runtime import cache
from tcc.runtime import layout as at
from tcc.runtime.native import provide
from tcc.runtime.symbols import symbols

# What entries, bodies and Python may call, and its type.
DECLARATIONS: dict[str, str] = {
    "tcc_parallel": "declare void @tcc_parallel(ptr, ptr, ptr, i64, i64)",
    "tcc_fail": "declare void @tcc_fail(ptr, i64, i64, i64, i64, i64)",
    "tcc_poll": "declare i32 @tcc_poll(ptr)",
    "tcc_host_call": "declare i32 @tcc_host_call(ptr, ptr, i64)",
    "tcc_output": "declare ptr @tcc_output(ptr, i64, i64, i64, ptr)",
    "tcc_grant": "declare i32 @tcc_grant(ptr, i64, i64)",
    "tcc_late_alloc": "declare ptr @tcc_late_alloc(ptr, i64, i64)",
    "tcc_late_release": "declare void @tcc_late_release(ptr, ptr)",
    "tcc_late_enter": "declare void @tcc_late_enter(ptr)",
    "tcc_late_leave": "declare void @tcc_late_leave(ptr)",
    "tcc_gil_release": "declare void @tcc_gil_release(ptr)",
    "tcc_gil_acquire": "declare void @tcc_gil_acquire(ptr)",
    "tcc_slow": "declare ptr @tcc_slow(ptr, ptr, i64, ptr)",
    "tcc_call": "declare ptr @tcc_call(ptr, ptr, i64, ptr)",
    "tcc_raise": "declare void @tcc_raise(ptr)",
    "tcc_adopt": "declare i1 @tcc_adopt(ptr, i64, ptr)",
    "tcc_drop": "declare void @tcc_drop(ptr, i64)",
    "tcc_shared_ready": "declare i1 @tcc_shared_ready(ptr, ptr, ptr, ptr)",
    "tcc_shared_lock": "declare void @tcc_shared_lock(ptr, ptr, ptr)",
    "tcc_shared_unlock": "declare void @tcc_shared_unlock(ptr, ptr, ptr)",
    "tcc_kept": "declare i1 @tcc_kept(ptr, ptr, i64, ptr, ptr)",
}


def support_text(target: Target) -> str:
    """The whole module, but for what `compile_object` adds."""
    return "".join(
        (
            pool_text(target),
            clock_text("tcc_coarse_clock", CLOCK_MONOTONIC_COARSE),
            error_text(),
            python_text(),
            late_text(),
            _list_text(),
            containers_text(),
        )
    )


def error_text(linkage: str = "") -> str:
    """`tcc_fail`: keeps the first error of a call."""
    return f"""
define {linkage}void @tcc_fail(ptr %ctx, i64 %op, i64 %a, i64 %b, i64 %c, i64 %d) #0 {{
  %op.at = getelementptr i64, ptr %ctx, i64 {at.CTX_ERROR}
  %swap = cmpxchg ptr %op.at, i64 0, i64 %op acq_rel monotonic, align 8
  %first = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %first, label %write, label %out
write:
  %a.at = getelementptr i64, ptr %op.at, i64 1
  %b.at = getelementptr i64, ptr %op.at, i64 2
  %c.at = getelementptr i64, ptr %op.at, i64 3
  %d.at = getelementptr i64, ptr %op.at, i64 4
  store i64 %a, ptr %a.at
  store i64 %b, ptr %b.at
  store i64 %c, ptr %c.at
  store i64 %d, ptr %d.at
  br label %out
out:
  ret void
}}
"""


def _list_text() -> str:
    """For Python, which changes a record's free lists in one step by calling these with the GIL held."""
    return f"""
define void @tcc_list_push(ptr %head.at, ptr %block) #0 {{
  %head = load ptr, ptr %head.at
  %next.at = getelementptr i64, ptr %block, i64 {at.BLOCK_NEXT}
  store ptr %head, ptr %next.at
  store ptr %block, ptr %head.at
  ret void
}}

define ptr @tcc_list_take(ptr %head.at) #0 {{
  %head = load ptr, ptr %head.at
  store ptr null, ptr %head.at
  ret ptr %head
}}
"""


@functools.cache
def load() -> Mapping[str, int]:
    """The addresses of the support functions in this process, also given to tcc.runtime.native."""
    target = host()
    key = cache_key("support", "", target)
    data = cache.get(key)
    if data is None:
        data = compile_object(support_text(target), target, level=0)
        cache.put(key, data)
    image = Image.load([data], symbols())
    addresses = {name: image.address(name) for name in (*DECLARATIONS, "tcc_list_push", "tcc_list_take")}
    provide(addresses, image)
    return addresses
