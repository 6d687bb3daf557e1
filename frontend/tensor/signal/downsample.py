"""Older names of pooling."""

from __future__ import annotations

from tcc.tensor.signal.pool import max_pool_2d_same_size, pool_2d

max_pool_2d = pool_2d

__all__ = ["max_pool_2d", "max_pool_2d_same_size", "pool_2d"]
