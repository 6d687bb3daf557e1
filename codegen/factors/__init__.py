"""Kernels of linear algebra: factors of matrices and solutions by them."""
