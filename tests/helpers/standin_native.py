"""Kernels of the emulator as a library of their own: C programs launch them on the stand-in, with no Python in the process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import standin

from tcc.codegen.gpu.emulator import _compile, host_text
from tcc.codegen.target import host
from tcc.runtime.device_program import DeviceKernel

TABLE = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef int32_t run(const void *, const int64_t *, int64_t, int64_t, const int64_t *, int64_t, int64_t, int64_t *);
extern void standin_set_launch(int (*)(const char *, unsigned *, void *, size_t, unsigned));
%s
static struct { const char *name; run *code; } table[] = { %s };
static int launch(const char *name, unsigned *dims, void *params, size_t bytes, unsigned shared) {
    int64_t grid[3] = {dims[0], dims[1], dims[2]}, all[2] = {4096, INT64_MAX}, fault[3] = {0, 0, 0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name))
            return table[i].code(params, grid, dims[3], 0, all, 1, shared, fault) || fault[0] ? 719 : 0;
    fprintf(stderr, "no kernel %%s\\n", name);
    return 719;
}
__attribute__((constructor)) static void begin(void) { standin_set_launch(launch); }
"""


def build(kernels: Iterable[DeviceKernel], made: Path) -> Path:
    """The library at `made`, which a process preloads; their text is LLVM's, as for the emulator."""
    names: list[str] = []
    objects: list[str] = []
    for number, k in enumerate(kernels):
        text, waits = host_text(k)
        file = made.with_suffix(f".{number}.o")
        file.write_bytes(_compile(text.replace("@emu_launch", f"@emu_launch_{number}"), host(), waits))
        names.append(k.name)
        objects.append(str(file))
    source = made.with_suffix(".c")
    externs = "\n".join(f"extern run emu_launch_{n};" for n in range(len(names)))
    source.write_text(TABLE % (externs, ", ".join(f'{{"{k}", emu_launch_{n}}}' for n, k in enumerate(names))))
    libraries = [f"-L{standin.folder()}", "-l:libcuda.so.1"]
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source), *objects, *libraries], check=True)
    return made
