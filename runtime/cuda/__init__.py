"""NVIDIA GPUs through pycuda, which is imported where a device is opened."""

from __future__ import annotations
