"""Linear algebra under the names of Theano's nlinalg.  It runs on the host, through NumPy's LAPACK, and has gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.build import node, shape_of, size_of, size_product
from tcc.creation import identity_like, tensor, zeros
from tcc.elemwise import DISCRETE, abs_, add, cast, mul, neq, pow, sqr, sqrt, sub
from tcc.gradient import DisconnectedType, Lop
from tcc.joining import concatenate
from tcc.matrices import alloc_diag, diag, trace
from tcc.opfunction import OpFunction
from tcc.products import dot, outer
from tcc.reductions import axes_of, max, min
from tcc.reductions import sum as total
from tcc.shapes import dimshuffle, reshape
from tcc.types import promote
from tcc.user_op import Apply, Op
from tcc.variable import Variable, as_variable

__all__ = [
    "alloc_diag",
    "det",
    "diag",
    "eig",
    "eigh",
    "extract_diag",
    "inv",
    "logdet",
    "lstsq",
    "matrix_dot",
    "matrix_inverse",
    "matrix_power",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "svd",
    "tensorinv",
    "tensorsolve",
    "trace",
]


def as_matrix(x: Any, name: str) -> Any:
    """A matrix, or a batch of them, of floats; integers become float64."""
    x = as_variable(x)
    if x.type.ndim < 2:
        raise TypeError(f"{name} takes a matrix, got {x.type}")
    return cast(x, "float64") if x.type.dtype in DISCRETE else x


@OpFunction
def matrix_inverse(x: Any) -> Any:
    """The inverse; numpy.linalg.LinAlgError when the function runs for a matrix that has none."""
    return node("matrix_inverse", as_matrix(x, "matrix_inverse")).result


inv = matrix_inverse


@OpFunction
def pinv(x: Any) -> Any:
    """The pseudo-inverse of Moore and Penrose."""
    return node("pinv", as_matrix(x, "pinv")).result


@OpFunction
def det(x: Any) -> Any:
    """The determinant."""
    return node("det", as_matrix(x, "det")).result


def logdet(x: Any) -> Any:
    """The logarithm of the magnitude of the determinant, which itself may overflow."""
    return node("logabsdet", as_matrix(x, "logdet")).result


def eigh(x: Any, UPLO: str = "L") -> tuple[Any, Any]:
    """The eigenvalues, ascending, and eigenvectors of a symmetric matrix, of which only one triangle is read."""
    if UPLO not in ("L", "U"):
        raise ValueError(f"UPLO must be L or U, got {UPLO!r}")
    x = as_matrix(x, "eigh")
    w, v = node("eigh", _swapped(x) if UPLO == "U" else x).results
    return w, v


@OpFunction
def eig(x: Any) -> tuple[Any, Any]:
    """The eigenvalues, all of which must be real, and eigenvectors of length 1."""
    w, v = node("eig", as_matrix(x, "eig")).results
    return w, v


def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """u, the singular values s, descending, and v' with x = u s v'; s alone without compute_uv.

    The gradients by u and v are infinite where two singular values are equal, or one is 0.
    """
    x = as_matrix(x, "svd")
    if not compute_uv:
        return node("singular_values", x).result
    return list(node("svd", x, full_matrices=bool(full_matrices)).results)


def qr(x: Any, mode: str = "reduced") -> Any:
    """q with orthonormal columns and an upper triangle r with x = q r; r alone in mode "r"."""
    modes = {"reduced": False, "full": False, "complete": True, "r": False}
    if mode not in modes:
        raise ValueError(f"qr: mode must be one of {', '.join(modes)}, got {mode!r}")
    q, r = node("qr", as_matrix(x, "qr"), complete=modes[mode]).results
    return r if mode == "r" else [q, r]


def _swapped(x: Any) -> Any:
    rank = x.type.ndim
    return dimshuffle(x, *range(rank - 2), rank - 1, rank - 2)


def matrix_dot(*args: Any) -> Any:
    """The product of several matrices, from the left."""
    made = as_variable(args[0])
    for a in args[1:]:
        made = dot(made, a)
    return made


def matrix_power(x: Any, n: int) -> Any:
    """The n-th power of a matrix, n a number, by squaring."""
    x = as_variable(x)
    if n < 0:
        x, n = matrix_inverse(x), -n
    made = None
    while n:
        if n % 2:
            made = x if made is None else dot(made, x)
        n //= 2
        if n:
            x = dot(x, x)
    return identity_like(x) if made is None else made


def extract_diag(x: Any) -> Any:
    """The diagonal of a matrix."""
    x = as_variable(x)
    if x.type.ndim != 2:
        raise TypeError("ExtractDiag only works on matrices", x)
    return diag(x)


def norm(x: Any, ord: Any = None, axis: Any = None) -> Any:
    """The norm of a vector or matrix, as numpy.linalg.norm: `ord` is None, fro, nuc, inf, -inf or a number."""
    x = as_variable(x)
    ord = {"inf": float("inf"), "-inf": float("-inf")}.get(ord, ord)
    if x.type.ndim == 0:
        raise ValueError("'axis' entry is out of bounds.")
    if axis is None:
        if x.type.ndim > 2:
            raise NotImplementedError(
                "Norms along several axes are only implemented for vectors and matrices"
            )
        if ord is None:
            return sqrt(total(sqr(x)))
        axis = tuple(range(x.type.ndim))
    axes = axes_of(axis, x.type.ndim)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes[0])
    if len(axes) != 2:
        raise ValueError(f"norm: one or two axes, got {axis}")
    row, column = (a % x.type.ndim for a in axis)
    if ord in (None, "fro"):
        return sqrt(total(sqr(x), axis=axes))
    if ord in (2, -2, "nuc"):
        rest = [a for a in range(x.type.ndim) if a not in axes]
        s = svd(dimshuffle(x, *rest, row, column), compute_uv=False)
        last = s.type.ndim - 1
        return total(s, axis=last) if ord == "nuc" else max(s, axis=last) if ord == 2 else min(s, axis=last)
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise ValueError(f"norm: no norm {ord!r} of matrices")
    added, left = (row, column) if abs(ord) == 1 else (column, row)
    sums = total(abs_(x), axis=added)
    at = left - (left > added)
    return max(sums, axis=at) if ord > 0 else min(sums, axis=at)


def _vector_norm(x: Any, ord: Any, axis: int) -> Any:
    if ord is None or ord == 2:
        return sqrt(total(sqr(x), axis=axis))
    if isinstance(ord, str):
        raise ValueError(f"norm: no norm {ord!r} of vectors")
    if ord == float("inf"):
        return max(abs_(x), axis=axis)
    if ord == float("-inf"):
        return min(abs_(x), axis=axis)
    if ord == 0:
        return total(neq(x, 0), axis=axis)
    return pow(total(pow(abs_(x), ord), axis=axis), 1.0 / ord)


def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse of the linear map from a's last axes (from `ind` on) to its first ones."""
    a = as_variable(a)
    if ind <= 0:
        raise ValueError("Invalid ind argument.")
    shape = shape_of(a)
    flat = reshape(a, [size_product(shape[:ind]), size_product(shape[ind:])])
    return reshape(matrix_inverse(flat), [*shape[ind:], *shape[:ind]])


def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """x with tensordot(a, x, x.ndim) = b; `axes` of a are moved behind the others first."""
    from tcc.tensor.slinalg import solve

    a, b = as_variable(a), as_variable(b)
    if axes is not None:
        moved = [k % a.type.ndim for k in axes]
        a = dimshuffle(a, *(k for k in range(a.type.ndim) if k not in moved), *moved)
    wanted = list(shape_of(a))[b.type.ndim :]
    n = size_product(list(shape_of(b)))
    flat = solve(reshape(a, [n, size_product(wanted)]), reshape(b, [n]))
    return reshape(flat, wanted)


def lstsq(a: Any, b: Any, rcond: Any = None) -> list[Any]:
    """numpy.linalg.lstsq: the solution, the residuals, the rank and the singular values.

    `rcond`, below which part of the largest a singular value counts as zero, is a number or a scalar variable.
    """
    a, b = as_matrix(a, "lstsq"), as_variable(b)
    dtype = promote(a.type.dtype, b.type.dtype, "float32")
    kinds = [(dtype, b.type.ndim), (dtype, 1), ("int64", 0), (dtype, 1)]
    outputs = [tensor(d, (False,) * rank) for d, rank in kinds]
    values = [cast(a, dtype), cast(b, dtype)]
    if isinstance(rcond, Variable):
        return list(Apply(LeastSquares(None), [*values, rcond], outputs).results)
    return list(Apply(LeastSquares(rcond), values, outputs).results)


class LeastSquares(Op):
    """Results of sizes that hang on the matrix's rank.  The gradients are those of a matrix of full rank."""

    __props__ = ("rcond",)

    def __init__(self, rcond: float | None) -> None:
        self.rcond = None if rcond is None else float(rcond)

    def perform(self, node: Any, inputs: Any, output_storage: Any) -> None:
        least_squares: Any = np.linalg.lstsq
        made = least_squares(*inputs[:2], rcond=inputs[2] if len(inputs) > 2 else self.rcond)
        for storage, value, output in zip(output_storage, made, node.outputs):
            storage[0] = np.asarray(value, output.type.dtype)

    def L_op(self, inputs: Any, outputs: Any, output_grads: Any) -> Any:
        """Of x = pinv(a) b, of the squared residuals (there are none where a has no more rows than columns), and of the
        singular values."""
        a, b = inputs[:2]
        x, _, _, s = outputs
        gx, gr, _, gs = output_grads
        made, values = dot(pinv(a), b), svd(a, compute_uv=False)
        columns = size_of(b, 1) if b.type.ndim == 2 else 1
        gr = concatenate([gr, zeros([columns], gr.type.dtype)])[:columns]
        rest = sub(b, dot(a, x))
        slope = mul(rest, gr if b.type.ndim == 2 else gr[0], 2)
        by_a, by_b = Lop([made, values], [a, b], [gx, gs])
        by_residuals = dot(slope, _swapped(x)) if b.type.ndim == 2 else outer(slope, x)
        return [sub(by_a, by_residuals), add(by_b, slope), *(DisconnectedType()() for _ in inputs[2:])]


def slogdet(x: Any) -> tuple[Any, Any]:
    """The sign of the determinant, and the logarithm of its magnitude."""
    return node("sign_of_det", as_matrix(x, "slogdet")).result, logdet(x)
