"""Theano's op classes of products and matrices."""

from __future__ import annotations

from typing import Any

from tcc import (
    products,
)
from tcc.tensor import nlinalg, slinalg
from tcc.theano.legacyop import LegacyOp
from tcc.variable import as_variable


class Dot(LegacyOp):
    """The product of vectors and matrices; TypeError for others."""

    rows = ("matmul",)

    def apply(self, x: Any, y: Any) -> Any:
        x, y = as_variable(x), as_variable(y)
        for v in (x, y):
            if v.type.ndim not in (1, 2):
                raise TypeError(f"Dot takes vectors and matrices, got {v.type}")
        return products.dot(x, y)


class MatrixInverse(LegacyOp):
    def apply(self, x: Any) -> Any:
        return nlinalg.matrix_inverse(x)


class MatrixPinv(LegacyOp):
    def apply(self, x: Any) -> Any:
        return nlinalg.pinv(x)


class Det(LegacyOp):
    def apply(self, x: Any) -> Any:
        return nlinalg.det(x)


class Eig(LegacyOp):
    def apply(self, x: Any) -> Any:
        return nlinalg.eig(x)


class Eigh(LegacyOp):
    options = {"UPLO": "L"}

    def apply(self, x: Any) -> Any:
        return nlinalg.eigh(x, self.UPLO)


class SVD(LegacyOp):
    options = {"full_matrices": True, "compute_uv": True}

    def apply(self, x: Any) -> Any:
        return nlinalg.svd(x, self.full_matrices, self.compute_uv)


class QRFull(LegacyOp):
    options = {"mode": "full"}

    def apply(self, x: Any) -> Any:
        return nlinalg.qr(x, self.mode)


class QRIncomplete(LegacyOp):
    options = {"mode": "r"}

    def apply(self, x: Any) -> Any:
        return nlinalg.qr(x, self.mode)


class TensorInv(LegacyOp):
    options = {"ind": 2}

    def apply(self, a: Any) -> Any:
        return nlinalg.tensorinv(a, self.ind)


class LeastSquares(LegacyOp):
    """Theano's `lstsq()(a, b, rcond)`."""

    def apply(self, a: Any, b: Any, rcond: Any) -> Any:
        return nlinalg.lstsq(a, b, as_variable(rcond))


class TensorSolve(LegacyOp):
    options = {"axes": None}

    def apply(self, a: Any, b: Any) -> Any:
        return nlinalg.tensorsolve(a, b, self.axes)


class Expm(LegacyOp):
    def apply(self, x: Any) -> Any:
        return slinalg.expm(x)
