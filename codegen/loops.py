"""The kernel of each placed op."""

from __future__ import annotations

from tcc.codegen.columns import column_kernel
from tcc.codegen.conv.few_filters import conv_filter_kernel
from tcc.codegen.conv.images import conv_kernel
from tcc.codegen.extremes import arg_kernel
from tcc.codegen.factors.cholesky import cholesky_kernel
from tcc.codegen.factors.lu import lu_pivots_kernel, lu_solve_kernel
from tcc.codegen.factors.triangular import triangular_solve_kernel
from tcc.codegen.gather import check_index_kernel, gather_kernel, running_kernel, scatter_kernel
from tcc.codegen.kernel import Kernel
from tcc.codegen.pooling import max_pool_pick_kernel, pool_kernel
from tcc.codegen.positions import positions_kernel, searchsorted_kernel
from tcc.codegen.products.op import product_kernel
from tcc.codegen.products.panels import panels_kernel
from tcc.codegen.products.widening import widening_product_kernel
from tcc.codegen.program import Program, build, copy_program
from tcc.codegen.random import mrg_kernel
from tcc.codegen.rows import row_kernel
from tcc.codegen.sorting import sort_kernel, topk_kernel
from tcc.codegen.sparse import csr_dot_kernel, csr_sample_kernel, csr_tdot_kernel
from tcc.codegen.target import Target
from tcc.codegen.tiled_pooling import max_pool_grad_kernel, unpool_kernel
from tcc.codegen.totals import totals_kernel
from tcc.codegen.transpose import transpose_kernel, turns
from tcc.codegen.weaving import weaves, weaving_kernel
from tcc.ir.core import Op


def fuse_kernel(op: Op, target: Target) -> Kernel:
    """A placed `fuse` op: maps, reductions and row kernels."""
    return program_kernel(build(op), target)


def copy_kernel(op: Op, target: Target) -> Kernel:
    """`copy source, target` between places of any strides."""
    program = copy_program(op)
    return transpose_kernel(program, target) if turns(program, target) else program_kernel(program, target)


def program_kernel(program: Program, target: Target) -> Kernel:
    if program.row and not program.reduced[-1] and any(w.reduce for w in program.writes):
        return totals_kernel(program, target)
    if weaves(program, target):
        return weaving_kernel(program, target)
    outer_only = any(program.reduced[:-1]) and not program.reduced[-1]
    return column_kernel(program, target) if outer_only else row_kernel(program, target)


KERNELS = {
    "fuse": fuse_kernel,
    "copy": copy_kernel,
    "matmul": product_kernel,
    "matmul_widening": widening_product_kernel,
    "panels": panels_kernel,
    "conv": conv_kernel,
    "conv_input": conv_kernel,
    "conv_filter": conv_filter_kernel,
    "gather": gather_kernel,
    "scatter": scatter_kernel,
    "check_index": check_index_kernel,
    "check_pivots": check_index_kernel,
    "check_sparse": check_index_kernel,
    "cholesky_factor": cholesky_kernel,
    "lu_pivots": lu_pivots_kernel,
    "lu_solve": lu_solve_kernel,
    "triangular_solve": triangular_solve_kernel,
    "argmax": arg_kernel,
    "argmin": arg_kernel,
    "cumsum": running_kernel,
    "cumprod": running_kernel,
    "pool": pool_kernel,
    "unpool": unpool_kernel,
    "max_pool_grad": max_pool_grad_kernel,
    "max_pool_pick": max_pool_pick_kernel,
    "mrg": mrg_kernel,
    "sort": sort_kernel,
    "argsort": sort_kernel,
    "argtopk": topk_kernel,
    "positions": positions_kernel,
    "csr_dot": csr_dot_kernel,
    "csr_tdot": csr_tdot_kernel,
    "csr_sample": csr_sample_kernel,
    "searchsorted": searchsorted_kernel,
}
