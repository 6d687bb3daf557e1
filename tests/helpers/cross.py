"""Runs compiled bodies of functions on other machines: under qemu-user, and for wasm32 under Node.

A program is one executable of several functions' `run` with a runner, which reads frames from a file and writes back what their
buffers hold then.  What bodies call (codegen/support.py) is here: one thread, no Python, memory that is never given back.
"""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcc.codegen import jit
from tcc.codegen.aot import freestanding
from tcc.codegen.driver import Lowered, kernels_text, lower
from tcc.codegen.emit import merge
from tcc.codegen.products import engines
from tcc.codegen.target import LEVELS, Target, host, level
from tcc.ir import dims
from tcc.ir.arrays import as_numbers, in_memory
from tcc.ir.clone import clone
from tcc.ir.core import Func
from tcc.ir.knobs import KnobError
from tcc.ir.types import memory_dtype
from tcc.passes.manager import Context, run
from tcc.passes.pipeline import cpu_pipeline
from tcc.runtime import layout as at

Array = np.ndarray[Any, Any]

STUBS = f"""
declare ptr @tcc_take(i64)
define void @tcc_parallel(ptr %ctx, ptr %body, ptr %args, i64 %units, i64 %grain) #0 {{
  %some = icmp sgt i64 %units, 0
  br i1 %some, label %run, label %out
run:
  call void %body(ptr %ctx, ptr %args, i64 0, i64 %units, i64 0)
  br label %out
out:
  ret void
}}
define i32 @tcc_poll(ptr %ctx) #0 {{
  ret i32 0
}}
define void @tcc_fail(ptr %ctx, i64 %op, i64 %a, i64 %b, i64 %c, i64 %d) #0 {{
  %at = getelementptr i64, ptr %ctx, i64 {at.CTX_ERROR}
  store i64 %op, ptr %at
  ret void
}}
define i32 @tcc_grant(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
  ret i32 0
}}
define ptr @tcc_late_alloc(ptr %ctx, i64 %claim, i64 %bytes) #0 {{
  %p = call ptr @tcc_take(i64 %bytes)
  ret ptr %p
}}
define void @tcc_late_release(ptr %ctx, ptr %mark) #0 {{
  ret void
}}
"""
# Of each job: function, scratch bytes, slots; of each slot: is it a buffer, its value or bytes, its contents padded to 8.
RUNNER = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void *tcc_take(int64_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes + 64)) abort();
  return p;
}
int main(int argc, char **argv) {
  FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
  int64_t head[3], part[2], n;
  while (fread(head, 8, 3, in) == 3) {
    int64_t *frame = tcc_take(8 * head[2]), *bytes = calloc(head[2], 8);
    for (n = 0; n < head[2]; n++) {
      if (fread(part, 8, 2, in) != 2) return 2;
      frame[n] = part[1];
      if (!part[0]) continue;
      void *data = tcc_take(part[1]);
      if (fread(data, 8, (part[1] + 7) / 8, in) != (part[1] + 7) / 8) return 3;
      memcpy(&frame[n], &data, sizeof data);
      bytes[n] = part[1];
    }
    void *scratch = tcc_take(head[1]);
    memcpy(*(int64_t **)frame + CTX_SCRATCH, &scratch, sizeof scratch);
    int64_t status = table[head[0]](frame);
    fwrite(&status, 8, 1, out);
    for (n = 0; n < head[2]; n++)
      if (bytes[n]) fwrite(*(void **)&frame[n], 1, bytes[n], out);
  }
  return fclose(out);
}
"""
NODE = r"""
const fs = require("fs"), data = fs.readFileSync(process.argv[2]), parts = [];
const module_ = new WebAssembly.Module(fs.readFileSync(process.argv[3]));
let top = 0;
const take = (bytes) => {
  top = Math.ceil(top / 64) * 64;
  const here = top;
  top += Number(bytes) + 64;
  const lacks = top - memory.buffer.byteLength;
  if (lacks > 0) memory.grow(Math.ceil(lacks / 65536));
  return here;
};
const { exports: e } = new WebAssembly.Instance(module_, { env: { tcc_take: take } });
const memory = e.memory;
top = e.__heap_base.value;
const start = top;
let at = 0;
const word = () => { at += 8; return Number(data.readBigInt64LE(at - 8)); };
while (at < data.length) {
  top = start;
  const index = word(), scratch = word(), slots = word(), frame = take(8 * slots), kept = [];
  for (let n = 0; n < slots; n++) {
    const buffer = word();
    let value = word();
    if (buffer) {
      const here = take(value);
      new Uint8Array(memory.buffer).set(data.subarray(at, at + value), here);
      at += Math.ceil(value / 8) * 8;
      kept.push([here, value]);
      value = here;
    }
    new DataView(memory.buffer).setBigInt64(frame + 8 * n, BigInt(value), true);
  }
  const ctx = new DataView(memory.buffer).getUint32(frame, true);
  const own = take(scratch);
  new DataView(memory.buffer).setUint32(ctx + 8 * CTX_SCRATCH, own, true);
  const status = Buffer.alloc(8);
  status.writeBigInt64LE(BigInt(e[NAMES[index]](frame)));
  parts.push(status, ...kept.map(([p, n]) => Buffer.from(memory.buffer.slice(p, p + n))));
}
fs.writeFileSync(process.argv[4], Buffer.concat(parts));
"""


@dataclass(frozen=True)
class Job:
    """A function of values, and an argument for each parameter."""

    func: Func
    arrays: Sequence[Array]


def missing(target: Target) -> str:
    """What this machine lacks to link and run code for a target, or ""."""
    arch = target.triple.split("-")[0]
    if arch == "wasm32":
        tools = ["node"] if _zig() else ["node", "wasm-ld"]
    elif arch == host().triple.split("-")[0]:
        tools = ["cc"]
    else:
        tools = [f"qemu-{arch}"] if _zig() else [f"qemu-{arch}", f"{arch}-linux-gnu-gcc"]
    return ", ".join(t for t in tools if shutil.which(t) is None)


def _zig() -> bool:
    return importlib.util.find_spec("ziglang") is not None


def require(target: Target) -> None:
    lacks = missing(target)
    if lacks:
        pytest.skip(f"no {lacks} to run code for {target.triple}")
    if target.cpu in LEVELS:
        try:
            level(target.cpu)
        except KnobError as e:
            pytest.skip(str(e))


def compute(jobs: Sequence[Job], target: Target, folder: Path) -> list[list[Array]]:
    """The results of each job, new values of shared variables among them, on that machine."""
    lowered = [_lowered(job.func, target) for job in jobs]
    program = _linked(lowered, target, folder)
    frames = [_frame(low, job) for low, job in zip(lowered, jobs)]
    (folder / "in").write_bytes(
        b"".join(_encoded(k, low, slots) for k, (low, slots) in enumerate(zip(lowered, frames)))
    )
    done = subprocess.run([*program, str(folder / "out")], stderr=subprocess.PIPE, text=True, timeout=300)
    if "qemu-" in done.stderr and "Assertion" in done.stderr:
        said = next(line for line in done.stderr.splitlines() if "Assertion" in line)
        pytest.skip(f"this qemu fails itself: {said}")
    assert done.returncode == 0, done.stderr
    data, at_byte = (folder / "out").read_bytes(), 0
    made = []
    for job, low, slots in zip(jobs, lowered, frames):
        assert int.from_bytes(data[at_byte : at_byte + 8], "little") == 0, "the function failed"
        at_byte += 8
        after: list[Array | None] = []
        for slot in slots:
            size = 0 if isinstance(slot, int) else slot.nbytes
            after.append(
                None
                if isinstance(slot, int)
                else np.frombuffer(data, slot.dtype, slot.size, at_byte).reshape(slot.shape)
            )
            at_byte += size
        made.append(_results(job, low, after))
    return made


def _lowered(func: Func, target: Target) -> Lowered:
    placed = clone(func)
    run(placed, cpu_pipeline(), Context(verify=1))
    made = lower(placed, target)
    assert not made.host_calls and not any(o.late for o in made.signature.outputs), "it needs Python"
    return made


def _frame(low: Lowered, job: Job) -> list[int | Array]:
    """Its slots: numbers, and what buffers hold."""
    s = low.signature
    params = {p.name: (p, a) for p, a in zip(job.func.body.params, job.arrays, strict=True)}
    inputs = [in_memory(params[i.name][1], i.dtype) for i in s.inputs]
    own = len(s.shared) - len(low.constants)
    shared = [in_memory(params[c.name][1], c.dtype) for c in s.shared[:own]] + list(low.constants)
    sizes = s.bind([a.shape for a in inputs], [a.shape for a in shared])
    ctx = np.zeros(at.CTX_SLOTS, np.int64)
    ctx[at.CTX_THREADS], ctx[at.CTX_SCRATCH_BYTES] = 1, dims.evaluate(s.scratch, sizes)
    arena = np.zeros(dims.evaluate(s.arena, sizes) + 64, np.uint8)
    outputs = [np.zeros([dims.evaluate(n, sizes) for n in o.shape], memory_dtype(o.dtype)) for o in s.outputs]
    slots: list[int | Array] = [ctx, arena, *inputs, *shared, *outputs, *(sizes[n] for n in s.frame.sizes)]
    return [s if isinstance(s, int) or s.nbytes else np.zeros(1, s.dtype) for s in slots]


def _encoded(index: int, low: Lowered, slots: Sequence[int | Array]) -> bytes:
    scratch = next(int(s[at.CTX_SCRATCH_BYTES]) for s in slots if not isinstance(s, int))
    parts = [struct.pack("<3q", index, scratch, len(slots))]
    for slot in slots:
        if isinstance(slot, int):
            parts.append(struct.pack("<2q", 0, slot))
        else:
            parts.append(struct.pack("<2q", 1, slot.nbytes) + slot.tobytes() + bytes(-slot.nbytes % 8))
    return b"".join(parts)


def _results(job: Job, low: Lowered, after: Sequence[Array | None]) -> list[Array]:
    s, frame = low.signature, low.signature.frame
    updates = {index: name for name, index in job.func.attrs.get("updates", {}).items()}
    outputs = iter(range(len(s.outputs)))
    made = []
    for k, value in enumerate(job.func.body.yields):
        if k in updates:
            name = next(i for i, c in enumerate(s.shared) if c.name == updates[k])
            array = after[frame.container(name)]
        else:
            array = after[frame.output(next(outputs))]
        assert array is not None
        made.append(as_numbers(array, value.type.dtype))
    return made


def _linked(lowered: Sequence[Lowered], target: Target, folder: Path) -> list[str]:
    """The command line that runs the program, but for the output's name."""
    wasm = target.triple.startswith("wasm32")
    kernels = {k.name: k for low in lowered for k in low.kernels.values()}
    texts = [kernels_text(kernels.values())]
    texts += dict.fromkeys(low.control_text() for low in lowered)
    texts += [engines.text(d, target) for d in sorted({d for low in lowered for d in low.engines.values()})]
    module = str(folder / "module.o")
    Path(module).write_bytes(jit.compile_object(merge([*texts, STUBS + freestanding.text(target)]), target))
    names = [low.name for low in lowered]
    if wasm:
        return _wasm(module, names, folder)
    externs = "".join(f"extern int {n}(void *);\n" for n in dict.fromkeys(names))
    table = f"{externs}static int (*table[])(void *) = {{{', '.join(names)}}};\n#define CTX_SCRATCH {at.CTX_SCRATCH}\n"
    (folder / "runner.c").write_text(table + RUNNER)
    arch = target.triple.split("-")[0]
    native = arch == host().triple.split("-")[0]
    compiler = ["cc"] if native else [f"{arch}-linux-gnu-gcc"]
    if not shutil.which(compiler[0]):
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"]
    program = str(folder / "program")
    words = ["-O1", "-static", str(folder / "runner.c"), module, "-lm", "-o", program]
    subprocess.run([*compiler, *words], check=True)
    cpu = {"riscv64": ["-cpu", "rv64,v=true,vlen=128,vext_spec=v1.0"]}.get(arch, [])
    return [*([] if native else [f"qemu-{arch}", *cpu]), program, str(folder / "in")]


def _wasm(module: str, names: Sequence[str], folder: Path) -> list[str]:
    linker = ["wasm-ld"] if shutil.which("wasm-ld") else [sys.executable, "-m", "ziglang", "wasm-ld"]
    exports = [f"--export={n}" for n in [*dict.fromkeys(names), "__heap_base"]]
    words = ["--no-entry", "--allow-undefined", *exports, module]
    subprocess.run([*linker, *words, "-o", str(folder / "program.wasm")], check=True)
    head = f"const CTX_SCRATCH = {at.CTX_SCRATCH}, NAMES = {list(names)!r};\n"
    (folder / "runner.js").write_text(head + NODE)
    return ["node", str(folder / "runner.js"), str(folder / "in"), str(folder / "program.wasm")]
