"""Tables of specs: what a library's checks hold tensors to, and what C programs read of its entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tcc.codegen.aot.layout import dlpack
from tcc.codegen.aot.messages import string
from tcc.codegen.lanes import alignment
from tcc.ir.types import numpy_dtype
from tcc.runtime.manifest import Array, Range

LARGEST_SIZE = 1 << 47


class Strings:
    """C strings as globals, each once."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return "@" + self.names.setdefault(text, f"tcc_text_{len(self.names)}")

    def text(self) -> str:
        return "".join(string(name, text) for text, name in self.names.items())


def spec_rows(arrays: Sequence[Array], ranges: Mapping[str, Range], strings: Callable[[str], str]) -> str:
    """The rows of a table of specs, and the arrays of sizes that they point to are written inline as `{...}` globals."""
    return ", ".join(
        f"%tcc_spec {{ ptr {strings(a.name)}, ptr {strings(','.join(map(str, a.shape)))}, "
        f"ptr {sizes_name(a, ranges, 0)}, ptr {sizes_name(a, ranges, 1)}, ptr {strings(dtype_name(a.dtype))}, "
        f"i32 {a.rank}, i32 {dlpack(a.dtype)}, i32 {alignment(a.dtype)}, i32 0 }}"
        for a in arrays
    )


def dtype_name(dtype: str) -> str:
    """As messages and users name it."""
    return "bfloat16" if dtype == "bf16" else str(numpy_dtype(dtype))


def limits(array: Array, ranges: Mapping[str, Range]) -> tuple[list[int], list[int]]:
    """The least and the most that each size may be."""
    least, most = [], []
    for size in array.sizes:
        known = ranges.get(size.plain or "", Range()) if not isinstance(size, int) else Range(size, size)
        least.append(known.least)
        most.append(LARGEST_SIZE if known.most is None else known.most)
    return least, most


def sizes_name(array: Array, ranges: Mapping[str, Range], which: int) -> str:
    numbers = limits(array, ranges)[which]
    return "@tcc_sizes" + "".join(f"_{n}" for n in numbers)


def sizes_text(arrays: Sequence[tuple[Array, Mapping[str, Range]]]) -> str:
    """The globals behind `sizes_name`."""
    made = {}
    for array, ranges in arrays:
        for which in (0, 1):
            numbers = limits(array, ranges)[which] or [0]
            inner = ", ".join(f"i64 {n}" for n in numbers)
            made[sizes_name(array, ranges, which)] = f"internal constant [{len(numbers)} x i64] [{inner}]"
    return "".join(f"{name} = {text}\n" for name, text in made.items())
