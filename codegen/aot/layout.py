"""What a model's library lays down for its callers: structs, status codes, limits.  The header that C reads says the same."""

from __future__ import annotations

from tcc.ir.types import itemsize
from tcc.runtime import layout

# DLTensor and tcc_spec (see the generated header), with a dtype's three fields as one word.
TENSOR = "%tcc_tensor = type { ptr, i32, i32, i32, i32, ptr, ptr, i64 }"
SPEC = "%tcc_spec = type { ptr, ptr, ptr, ptr, ptr, i32, i32, i32, i32 }"

STATUS = {
    name: number
    for number, name in enumerate(
        "ok null dtype device rank size range stride align alias overflow memory cpu index state file gpu".split()
    )
}
MESSAGE = 384  # bytes of a message
MOST = 1 << 47  # bytes of a tensor, where no address space of a program reaches
CODES = {"i": 0, "u": 1, "f": 2, "b": 6, "c": 5}  # DLPack's
ALIGN = 64

# A context, in slots of eight bytes: what `create` makes.  The state's tensors follow, each at a multiple of ALIGN.
CTX_MODEL = 0  # the address of the model's info
CTX_THREADS = 1
CTX_POOL = 2
CTX_LOADED = 3  # 1 once the state has values
CTX_DEVICE = 4  # the record of its GPU (gpu/library.py)
CTX_HANDED = 5  # not 0 once a tensor that has panels was handed out: each call makes them again
CTX_HEADER = 64  # bytes

STATE_ROW = "[6 x i64]"  # of the table of the state's tensors (aot/state.py)

# A call's context is a running program's (runtime/layout.py), but for what only that needs.
CALL_CONTEXT = layout.CTX_THREAD_STATE  # the address of the context above
CALL_INPUTS = layout.CTX_NEXT_POLL  # the array of inputs


def dlpack(dtype: str) -> int:
    """A dtype as DLPack's code, bits and lanes in one little-endian word."""
    code = 4 if dtype == "bf16" else 6 if dtype == "bool" else CODES[dtype[0]]
    return code | 8 * itemsize(dtype) << 8 | 1 << 16
