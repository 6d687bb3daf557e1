"""CUDA graphs, which pycuda lacks: what a stream is given between `capture` and the end of its block, as one launch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tcc.runtime.cuda.driver import library

END, BUFFER_POINTER, BUFFER_SIZE = 0, 1, 2  # CU_LAUNCH_PARAM_*
RELAXED = 2  # CU_STREAM_CAPTURE_MODE: other threads and allocations are not in the way


class GraphError(RuntimeError):
    """A call of the graph interface failed."""


def do(name: str, *args: Any) -> None:
    """Calls a function of the driver; GraphError if it fails."""
    status = getattr(library(), name)(*args)
    if status:
        _failed(name, status)


def _failed(name: str, status: int) -> None:
    text = ctypes.c_char_p()
    library().cuGetErrorString(status, ctypes.byref(text))
    raise GraphError(f"{name} failed: {(text.value or b'unknown error').decode(errors='replace')}")


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS."""

    _fields_ = [
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("parameters", ctypes.c_void_p),
        ("extra", ctypes.POINTER(ctypes.c_void_p)),
    ]


class Graph:
    """What a stream was given.  `launch` runs it there again; it is destroyed with the object.

    `nodes` are those of its launches, which `patch` changes.
    """

    def __init__(self, stream: int) -> None:
        self._run, self._stream = ctypes.c_void_p(), ctypes.c_void_p(stream)
        self._made = ctypes.c_void_p()
        self.nodes: list[int] = []
        self._patches: dict[int, _Patch] = {}
        self._launch, self._set = library().cuGraphLaunch, library().cuGraphExecKernelNodeSetParams

    def launch(self) -> None:
        status = self._launch(self._run, self._stream)
        if status:
            _failed("cuGraphLaunch", status)

    def note(self) -> None:
        """While it is captured: what the stream was given last is a launch."""
        status, number, graph = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_void_p()
        nodes, count = ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_size_t()
        places = map(ctypes.byref, (status, number, graph, nodes, count))
        do("cuStreamGetCaptureInfo_v2", self._stream, *places)
        self.nodes.append(int(nodes[count.value - 1] or 0))

    def patch(self, number: int, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        """Another grid and other arguments for a launch."""
        made = self._patches.get(number)
        if made is None:
            made = self._patches[number] = _Patch(self.nodes[number], len(arguments))
        made.words[:] = list(arguments)
        if made.grid is not grid:
            made.grid = made.params.grid[:] = grid
        status = self._set(self._run, made.node, made.pointer)
        if status:
            _failed("cuGraphExecKernelNodeSetParams", status)

    def __del__(self) -> None:
        with suppress(GraphError):
            self.close()

    def close(self) -> None:
        run, self._run = self._run, ctypes.c_void_p()
        if run:
            do("cuGraphExecDestroy", run)
        made, self._made = self._made, ctypes.c_void_p()
        if made:
            do("cuGraphDestroy", made)


class _Patch:
    """What the driver is given of a launch of a graph, whose grid and words may be changed."""

    def __init__(self, node: int, words: int) -> None:
        self.node, self.params = ctypes.c_void_p(node), KernelNode()
        self.grid: tuple[int, int, int] | None = None
        self.pointer = ctypes.byref(self.params)
        do("cuGraphKernelNodeGetParams", self.node, self.pointer)
        self.words = (ctypes.c_int64 * words)()
        self._size = ctypes.c_size_t(ctypes.sizeof(self.words))
        places = (ctypes.addressof(self.words), BUFFER_SIZE, ctypes.addressof(self._size), END)
        self.params.parameters, self.params.extra = None, (ctypes.c_void_p * 5)(BUFFER_POINTER, *places)


@contextmanager
def capture(stream: int) -> Iterator[Graph]:
    """A graph that is ready to be launched when the block is over.  The stream must not be the default one."""
    made, graph, handle = Graph(stream), ctypes.c_void_p(), ctypes.c_void_p(stream)
    do("cuStreamBeginCapture_v2", handle, RELAXED)
    try:
        yield made
    except BaseException:
        library().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            library().cuGraphDestroy(graph)
        raise
    do("cuStreamEndCapture", handle, ctypes.byref(graph))
    made._made = graph  # its nodes name those of what is launched
    do("cuGraphInstantiateWithFlags", ctypes.byref(made._run), graph, ctypes.c_ulonglong(0))
