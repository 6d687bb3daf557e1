"""The kernels of each placed op on a GPU."""

from __future__ import annotations

from collections.abc import Callable

from tcc.codegen.gpu import hopper, hopper_convolutions, tensorcore
from tcc.codegen.gpu.chips import LANE
from tcc.codegen.gpu.columns import column_kernels
from tcc.codegen.gpu.convolutions import conv_kernels
from tcc.codegen.gpu.general import general_kernel
from tcc.codegen.gpu.indexing import check_index_kernels, gather_kernels
from tcc.codegen.gpu.kernel import GpuKernel
from tcc.codegen.gpu.maps import map_kernel
from tcc.codegen.gpu.products import product_kernels
from tcc.codegen.gpu.random import dense_states, stream_kernel
from tcc.codegen.gpu.rows import row_kernels
from tcc.codegen.gpu.scans import scan_kernels, scans
from tcc.codegen.gpu.scatter import scatter_kernels
from tcc.codegen.gpu.searching import extreme_kernel, position_kernels
from tcc.codegen.gpu.sorting import sort_kernels
from tcc.codegen.gpu.totals import total_kernels
from tcc.codegen.gpu.turned import turned_kernel
from tcc.codegen.loops import KERNELS
from tcc.codegen.pooling import max_pool_pick_kernel, pool_kernel
from tcc.codegen.program import Program, build, copy_program
from tcc.codegen.tiled_pooling import max_pool_grad_kernel, unpool_kernel
from tcc.ir import dims
from tcc.ir.core import Op
from tcc.ir.dims import Size

PRODUCTS = frozenset("matmul matmul_widening conv conv_input conv_filter".split())


def kernels_of(op: Op, sm: int, specific: bool, tf32: bool = False) -> list[GpuKernel]:
    """What a placed op launches on a chip that is no older than `sm`, or is sm_90a (`specific`), in order.

    `tf32`: float32 products may round their operands to it.
    """
    if specific and hopper.fits(op):
        return [hopper.kernel(op)]
    if specific and hopper_convolutions.fits(op):
        return hopper_convolutions.kernels(op)
    if op.name in PRODUCTS and tensorcore.multiplies(op, sm, tf32):
        return tensorcore.matrix_kernels(op)
    if op.name in ("cumsum", "cumprod") and scans(op):
        return scan_kernels(op)
    if op.name == "mrg" and dense_states(op):
        return [stream_kernel(op)]
    if op.name in ("argmax", "argmin") and op.operands[0].type.strides[op.attrs["axis"]] == 1:
        return [extreme_kernel(op)]
    return OWN.get(op.name, general)(op)


def program_kernels(program: Program) -> list[GpuKernel]:
    inner = program.reduced[-1]
    if program.row and not inner and any(w.reduce for w in program.writes):
        return total_kernels(program)
    if any(program.reduced[:-1]) and not inner:
        return column_kernels(program)
    if inner or program.row:
        return row_kernels(program)
    return [turned_kernel(program) or map_kernel(program)]


def general(op: Op) -> list[GpuKernel]:
    """The CPU's kernel, unit by unit; a place has at least as many elements as there are units."""
    size: Size = 1
    for v in op.operands:
        size = dims.maximum(size, v.type.size)
    return [general_kernel(KERNELS[op.name](op, LANE), size)]


def pooled(op: Op) -> list[GpuKernel]:
    """An element of the result to a thread."""
    return [general_kernel(POOLED[op.name](op, LANE, True), op.operands[-1].type.size)]


POOLED = {
    "pool": pool_kernel,
    "max_pool_pick": max_pool_pick_kernel,
    "unpool": unpool_kernel,
    "max_pool_grad": max_pool_grad_kernel,
}
OWN: dict[str, Callable[[Op], list[GpuKernel]]] = {
    "fuse": lambda op: program_kernels(build(op)),
    "copy": lambda op: program_kernels(copy_program(op)),
    "matmul": product_kernels,
    "matmul_widening": product_kernels,
    "conv": conv_kernels,
    "conv_input": conv_kernels,
    "conv_filter": conv_kernels,
    "gather": gather_kernels,
    "scatter": scatter_kernels,
    "check_index": check_index_kernels,
    "check_pivots": check_index_kernels,
    "check_sparse": check_index_kernels,
    "positions": position_kernels,
    "sort": sort_kernels,
    "argsort": sort_kernels,
    "argtopk": sort_kernels,
    **dict.fromkeys(POOLED, pooled),
}
