"""An array of bfloat16 as another framework has it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tcc.runtime.dlpack import lend


class Lent:
    """Made of its 16 bits, as uint16."""

    def __init__(self, bits: np.ndarray[Any, Any]) -> None:
        self.bits = bits

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self) -> Any:
        return lend(self.bits.ctypes.data, self.bits.dtype, self.bits.shape, (1, 0), self, True)
