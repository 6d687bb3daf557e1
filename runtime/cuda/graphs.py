"""CUDA graphs, which pycuda lacks: what a stream is given between `capture` and the end of its block, as one launch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tcc.runtime.cuda.driver import library

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


class Graph:
    """What a stream was given.  `launch` runs it there again; it is destroyed with the object."""

    def __init__(self, stream: int) -> None:
        self._run, self._stream = ctypes.c_void_p(), ctypes.c_void_p(stream)
        self._launch = library().cuGraphLaunch

    def launch(self) -> None:
        status = self._launch(self._run, self._stream)
        if status:
            _failed("cuGraphLaunch", status)

    def __del__(self) -> None:
        with suppress(GraphError):
            self.close()

    def close(self) -> None:
        run, self._run = self._run, ctypes.c_void_p()
        if run:
            do("cuGraphExecDestroy", run)


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
    try:
        do("cuGraphInstantiateWithFlags", ctypes.byref(made._run), graph, ctypes.c_ulonglong(0))
    finally:
        do("cuGraphDestroy", graph)
