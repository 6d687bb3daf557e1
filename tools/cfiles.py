"""What a C program gets beside a model's library: the header, an example, and files for CMake and pkg-config."""

from __future__ import annotations

from tcc.codegen.aot.layout import ALIGN, CODES, STATUS
from tcc.codegen.aot.specs import dtype_name
from tcc.ir import dims
from tcc.ir.types import itemsize
from tcc.runtime.manifest import ABI, Array, Entry, Manifest

WORDS = {
    "ok": "done",
    "null": "a pointer that must not be null is; or there is no state of that name",
    "dtype": "a tensor has another dtype than the entry takes",
    "device": "a tensor is not in the CPU's memory, nor, in a library for GPUs, on the context's GPU",
    "rank": "a tensor has another number of axes",
    "size": "a tensor has another size, or a result of a size that depends on data has no room",
    "range": "a size is outside the range that the model was compiled for",
    "stride": "a tensor is not dense with the last axis first",
    "align": "an address is no multiple of what its elements, or the workspace, need",
    "alias": "a result, or the workspace, shares memory with another tensor or with the context",
    "overflow": "sizes are too large for memory to exist",
    "memory": "no memory was left",
    "cpu": "this CPU lacks a feature that the code needs",
    "index": "a check within the model failed: an index out of bounds, sizes that do not fit",
    "state": "the state has no values yet: the library was compiled with --weights separate",
    "gpu": "there is no NVIDIA driver or GPU, it is too old, or it failed; or a second call in one context at a time",
    "file": "a file or a buffer does not hold this model's state",
}

DLPACK = """/* DLPack's tensor.  Include dlpack/dlpack.h before this file where you use it. */
#if !defined(DLPACK_DLPACK_H_) && !defined(TCC_DLPACK)
#define TCC_DLPACK
typedef enum { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3 } DLDeviceType;
typedef struct { int32_t device_type; int32_t device_id; } DLDevice;
enum { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLComplex = 5, kDLBool = 6 };
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides;     /* NULL: dense, the last axis first */
  uint64_t byte_offset;
} DLTensor;
#endif
"""

COMMON = """
#ifndef TCC_ABI
#define TCC_ABI {abi}
/* Every call that can fail gives one of these; NAME_last_error() then says what was wrong, in this thread. */
enum {{
{statuses}
}};

/* What an entry wants of a tensor; `shape` names its sizes, which must lie from least[i] to most[i]. */
typedef struct {{
  const char *name, *shape;
  const int64_t *least, *most;
  const char *dtype_name;
  int32_t rank;
  DLDataType dtype;
  int32_t alignment, reserved;
}} tcc_spec;

typedef struct {{
  const char *name;
  int32_t arguments, results;
  const tcc_spec *tensors;  /* the arguments, then the results */
}} tcc_entry;

typedef struct {{
  int32_t abi, entry_count;
  const char *name, *version, *triple, *features;
  const tcc_entry *entries;
  const tcc_spec *state;
  int32_t state_count, threads;
}} tcc_info;

typedef struct {{
  int32_t threads;      /* of a call; 0: the most that the library was compiled for */
  int32_t device;       /* of a library for GPUs: the number of the GPU */
  const char *weights;  /* a file with the state's values; NULL: those in the library */
}} tcc_options;
#endif
"""


def signature(entry: Entry) -> str:
    def one(a: Array) -> str:
        return f"{a.name}: {dtype_name(a.dtype)}[{', '.join(map(str, a.shape))}]"

    return f"{entry.name}({', '.join(map(one, entry.arguments))}) -> ({', '.join(map(one, entry.results))})"


def header(m: Manifest) -> str:
    """NAME.h."""
    n, guard = m.name, f"{m.name.upper()}_H"
    statuses = "\n".join(f"  TCC_{k.upper()} = {v},  /* {WORDS[k]} */" for k, v in STATUS.items())
    entries = "".join(
        f"""
/* {signature(e)}{_state_note(e)}
   Arrays of pointers to {len(e.arguments)} arguments and {len(e.results)} results.  `workspace` may be NULL: memory is then taken for the call. */
int32_t {n}_{e.name}_infer_shapes(const {n}_context *context, const DLTensor *const *in, DLTensor *const *out);
int64_t {n}_{e.name}_workspace_size(const {n}_context *context, const DLTensor *const *in);
int32_t {n}_{e.name}_run({n}_context *context, const DLTensor *const *in, DLTensor *const *out, void *workspace);
"""
        for e in m.entries
    )
    state = "".join(
        f"     {t.name}: {dtype_name(t.dtype)}[{', '.join(map(str, t.shape))}]\n" for t in m.state
    )
    return f"""/* {n}.h: the model {n}, compiled by tcc {m.tcc}. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

{DLPACK}{COMMON.format(abi=ABI, statuses=statuses)}
typedef struct {n}_context {n}_context;

const tcc_info *{n}_info(void);
/* NULL on failure.  `options` may be NULL. */
{n}_context *{n}_create(const tcc_options *options);
void {n}_destroy({n}_context *context);
/* Of this thread's last call that failed; empty before the first. */
const char *{n}_last_error(void);

/* The state as the bytes of a safetensors file, and its tensors where they lie.
{state or "     This model has none." + chr(10)}*/
int64_t {n}_state_size(const {n}_context *context);
int32_t {n}_state_save(const {n}_context *context, void *buffer, int64_t bytes);
int32_t {n}_state_load({n}_context *context, const void *buffer, int64_t bytes);
int32_t {n}_state_get(const {n}_context *context, const char *name, DLTensor *out);

/* Calls are re-entrant: threads may share a context, but for entries that update the state, one at a time.
   infer_shapes fills dtype, rank and sizes of `out`, whose `shape` must have room; a size that depends on data is -1.
   workspace_size gives bytes, or -1; the workspace starts at a multiple of {ALIGN}. */
{entries}
#ifdef __cplusplus
}}
#endif
#endif
"""


def _state_note(e: Entry) -> str:
    if not e.updates:
        return ""
    return f"\n   Updates the state: {', '.join(e.updates)}."


# -- an example --------------------------------------------------------------------------------------------------


def example(m: Manifest) -> str:
    """NAME_example.c: calls each entry once with small arrays."""
    n = m.name
    calls = "".join(f"  if (call_{e.name}(context)) return 1;\n" for e in m.entries)
    return f"""/* Calls the model {n}:  cc {n}_example.c -L. -l{n} -Wl,-rpath,'$ORIGIN' -o {n}_example */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "{n}.h"

static int failed(const char *what) {{
  fprintf(stderr, "%s: %s\\n", what, {n}_last_error());
  return 1;
}}

/* Memory for a tensor, filled with small numbers; zeros where they may be indices. */
static void *filled(const DLTensor *t) {{
  size_t count = 1;
  for (int i = 0; i < t->ndim; i++) count *= (size_t)t->shape[i];
  void *data = calloc(count + 1, t->dtype.bits / 8);
  if (data && t->dtype.code == kDLFloat && t->dtype.bits == 32)
    for (size_t i = 0; i < count; i++) ((float *)data)[i] = 0.1f * (float)(i % 7);
  if (data && t->dtype.code == kDLFloat && t->dtype.bits == 64)
    for (size_t i = 0; i < count; i++) ((double *)data)[i] = 0.1 * (double)(i % 7);
  if (data && t->dtype.code == kDLBfloat)
    for (size_t i = 0; i < count; i++) ((uint16_t *)data)[i] = i % 2 ? 0x3f00 : 0x3e80;  /* 0.5 and 0.25 */
  return data;
}}

static void show(const char *name, const DLTensor *t) {{
  size_t count = 1;
  printf("%s [", name);
  for (int i = 0; i < t->ndim; i++) {{
    printf(i ? ", %lld" : "%lld", (long long)t->shape[i]);
    count *= (size_t)t->shape[i];
  }}
  printf("]");
  for (size_t i = 0; i < count && i < 4; i++) {{
    if (t->dtype.code == kDLFloat && t->dtype.bits == 32) printf(" %g", ((float *)t->data)[i]);
    else if (t->dtype.code == kDLFloat && t->dtype.bits == 64) printf(" %g", ((double *)t->data)[i]);
    else if (t->dtype.bits == 16 && t->dtype.code >= kDLFloat) printf(" 0x%04x", ((uint16_t *)t->data)[i]);
    else if (t->dtype.bits == 16) printf(" %d", (int)((int16_t *)t->data)[i]);
    else if (t->dtype.bits == 64) printf(" %lld", (long long)((int64_t *)t->data)[i]);
    else if (t->dtype.bits == 32) printf(" %d", (int)((int32_t *)t->data)[i]);
    else if (t->dtype.bits == 8) printf(" %d", (int)((int8_t *)t->data)[i]);
  }}
  printf(count > 4 ? " ...\\n" : "\\n");
}}
{"".join(_example_entry(n, e) for e in m.entries)}
/* The argument, if there is one, names a file with the state's values. */
int main(int argc, char **argv) {{
  tcc_options options = {{0, 0, argc > 1 ? argv[1] : NULL}};
  {n}_context *context = {n}_create(&options);
  if (!context) return failed("create");
{calls}  {n}_destroy(context);
  return 0;
}}
"""


def example_sizes(entry: Entry) -> dict[str, int]:
    """A number for each size name of an entry's arguments."""
    names = {n for a in entry.arguments for s in a.sizes for n in dims.names_of(s)}
    ranges = entry.sizes
    made = {}
    for name in sorted(names):
        known = ranges.get(name)
        least = known.least if known else 0
        most = known.most if known and known.most is not None else max(3, least)
        made[name] = min(max(3, least), most)
    return made


def _tensor(a: Array, sizes: dict[str, int]) -> str:
    numbers = [dims.evaluate(s, sizes) for s in a.sizes]
    code = 4 if a.dtype == "bf16" else 6 if a.dtype == "bool" else CODES[a.dtype[0]]
    shape = ", ".join(map(str, numbers)) or "0"
    return (
        f"  int64_t {a.name}_shape[] = {{{shape}}};\n"
        f"  DLTensor {a.name} = {{NULL, {{kDLCPU, 0}}, {a.rank}, {{{code}, {8 * itemsize(a.dtype)}, 1}}, {a.name}_shape, NULL, 0}};\n"
        f"  {a.name}.data = filled(&{a.name});\n"
    )


def _example_entry(n: str, e: Entry) -> str:
    e = _prefixed(e)
    sizes = example_sizes(e)
    arguments = "".join(_tensor(a, sizes) for a in e.arguments)
    rooms = "".join(
        f"  int64_t {r.name}_shape[{max(1, r.rank)}];\n  DLTensor {r.name} = {{0}};\n  {r.name}.shape = {r.name}_shape;\n"
        for r in e.results
    )
    ins = ", ".join(f"&{a.name}" for a in e.arguments) or "NULL"
    outs = ", ".join(f"&{r.name}" for r in e.results) or "NULL"
    late = "".join(
        f"  for (int i = 0; i < {r.name}.ndim; i++) if ({r.name}_shape[i] < 0) {r.name}_shape[i] = 1000;  /* depends on data */\n"
        for r in e.results
        if any(dims.names_of(s) - sizes.keys() for s in r.sizes)
    )
    made = "".join(f"  {r.name}.data = filled(&{r.name});\n" for r in e.results)
    shows = "".join(f'  show("{e.name}: {r.name[2:]}", &{r.name});\n' for r in e.results)
    frees = "".join(f"  free({a.name}.data);\n" for a in (*e.arguments, *e.results))
    return f"""
static int call_{e.name}({n}_context *context) {{
{arguments}{rooms}  const DLTensor *in[] = {{{ins}}};
  DLTensor *out[] = {{{outs}}};
  if ({n}_{e.name}_infer_shapes(context, in, out)) return failed("infer_shapes");
{late}{made}  int64_t bytes = {n}_{e.name}_workspace_size(context, in);
  if (bytes < 0) return failed("workspace_size");
  void *workspace = bytes ? aligned_alloc({ALIGN}, (size_t)(bytes + {ALIGN - 1}) / {ALIGN} * {ALIGN}) : NULL;
  if ({n}_{e.name}_run(context, in, out, workspace)) return failed("{e.name}");
{shows}  free(workspace);
{frees}  return 0;
}}
"""


def _prefixed(e: Entry) -> Entry:
    """With names that are no words of C and clash with nothing."""
    from dataclasses import replace

    return replace(
        e,
        arguments=tuple(replace(a, name=f"a_{a.name}") for a in e.arguments),
        results=tuple(replace(r, name=f"r_{r.name}") for r in e.results),
        reads=(),
        updates=(),
    )


# -- build systems -----------------------------------------------------------------------------------------------


def pkgconfig(m: Manifest) -> str:
    """NAME.pc, for wherever it lies."""
    return f"""prefix=${{pcfiledir}}

Name: {m.name}
Description: the model {m.name}, compiled by tcc
Version: {m.tcc}
Cflags: -I${{prefix}}
Libs: -L${{prefix}} -l{m.name}
Libs.private: -lm -lpthread
"""


def cmake_config(m: Manifest, library: str) -> str:
    """NAME-config.cmake: `find_package(NAME)` gives the target NAME::NAME."""
    kind = "STATIC" if library.endswith(".a") else "SHARED"
    extra = (
        f"\n  set_property(TARGET {m.name}::{m.name} PROPERTY INTERFACE_LINK_LIBRARIES m pthread)"
        if kind == "STATIC"
        else ""
    )
    nosoname = "" if kind == "STATIC" else "\n    IMPORTED_NO_SONAME TRUE"
    return f"""if(NOT TARGET {m.name}::{m.name})
  add_library({m.name}::{m.name} {kind} IMPORTED)
  set_target_properties({m.name}::{m.name} PROPERTIES
    IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{library}"{nosoname}
    INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}"){extra}
endif()
"""


def cmake_lists(m: Manifest) -> str:
    """CMakeLists.txt, which builds the example."""
    return f"""cmake_minimum_required(VERSION 3.10)
project({m.name}_example C)
find_package({m.name} CONFIG REQUIRED PATHS "${{CMAKE_CURRENT_SOURCE_DIR}}" NO_DEFAULT_PATH)
add_executable({m.name}_example {m.name}_example.c)
target_link_libraries({m.name}_example PRIVATE {m.name}::{m.name})
"""


def python_loader(m: Manifest, library: str) -> str:
    """NAME.py."""
    from pathlib import Path

    from tcc.runtime import library as loader

    text = Path(loader.__file__).read_text(encoding="utf-8")
    text = text.replace('NAME = "model"', f'NAME = "{m.name}"', 1)
    return text.replace('LIBRARY = "libmodel.so"', f'LIBRARY = "{library}"', 1)
