"""Ops whose device form is CUDA C of the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tcc.runtime.device_program import DeviceKernel, Operand
from tcc.runtime.devices import DeviceError
from tcc.user_op import Op


class CudaOp(Op):
    """An op that runs `source`, CUDA C, on a GPU, where pycuda compiles it with nvcc when it is first called.

    The function `kernel` of the source (`extern "C" __global__ void`) gets the addresses of the inputs and of the outputs, which are
    C-contiguous, then the sizes of all their axes in that order, as `long long`.  It is launched as `launch_shape` says: by default one
    thread for each element of the first output, in blocks of `block`.  The launch becomes a part of the function's graph.  Outputs need `infer_shape`, as in any Op.  `perform` is for
    functions that run on the CPU, and may be left out.
    """

    source: str
    kernel: str
    block: int = 256
    shared: int = 0  # bytes of dynamic shared memory

    def launch_shape(
        self, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]]
    ) -> tuple[int, int, int]:
        """The grid, in blocks, for these shapes; a grid without blocks is not launched."""
        return -(-math.prod(outputs[0]) // self.block), 1, 1

    def device_perform(
        self, device: Any, inputs: Sequence[tuple[int, Operand]], outputs: Sequence[tuple[int, Operand]]
    ) -> bool:
        """Launches the kernel on arrays at addresses, with shapes of numbers; False if the device takes no CUDA C."""
        compile_c = getattr(device, "compile_c", None)
        if compile_c is None:
            return False
        try:
            text = compile_c(self.source)
        except DeviceError as e:
            raise DeviceError(f"{self}: {e}") from None
        shapes = [[tuple(int(str(n)) for n in o.shape) for _, o in arrays] for arrays in (inputs, outputs)]
        grid = self.launch_shape(*shapes)
        arguments = [a for a, _ in (*inputs, *outputs)] + [n for many in shapes for s in many for n in s]
        kernel = DeviceKernel(self.kernel, text, self.block, len(arguments), self.shared, str(self))
        device.prepare(kernel)  # so that a later call, with blocks, can be captured
        if all(grid):
            device.launch(kernel, grid, arguments)
        return True
