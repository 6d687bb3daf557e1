"""One GPU as programs see it: memory from a pool, one stream, kernels by their text, copies through pinned memory."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from tcc.runtime.cuda import driver
from tcc.runtime.cuda.assembling import codes
from tcc.runtime.cuda.graphs import Graph, GraphError, capture, do
from tcc.runtime.cuda.tensormaps import tensor_map
from tcc.runtime.device_program import DeviceKernel, TensorMap
from tcc.runtime.devices import DeviceError, DeviceLost, DeviceMemoryError, Pool
from tcc.runtime.dlpack import CUDA
from tcc.runtime.garbage import uncollected

Array = np.ndarray[Any, Any]
STAGING = 4 << 20  # bytes of each of the two pinned buffers
UNTIMED = 2  # CU_EVENT_DISABLE_TIMING

_open: dict[int, CudaDevice] = {}
_opening = threading.Lock()


def open_device(number: int, preallocate: float = 0) -> CudaDevice:
    """The device of that number, the same one each time; DeviceError says why there is none.

    `preallocate`: of its memory, a share (below 1) or megabytes, taken when it is opened; below 0 none is kept.
    """
    with _opening:
        if number not in _open:
            _open[number] = CudaDevice(number, preallocate)
        return _open[number]


def _after_fork() -> None:
    for device in _open.values():
        device.lost = (
            f"{device.name} was opened before this process was forked, and CUDA works in the parent alone: start "
            "processes by spawn, or fork before the device is used; functions for the CPU go on"
        )
        device.inherited = True
        device._lock, device._depth = threading.RLock(), 0  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


class CudaDevice:
    """Owns whatever must not outlive the context.  The context is the device's primary one, which torch and CuPy share.

    Methods may be called from any thread, inside `with device:` or not; threads take turns.  The device works behind its
    callers: only `to_host`, large copies and `synchronise` wait.
    """

    def __init__(self, number: int, preallocate: float = 0) -> None:
        self.number, self.name = number, f"cuda{number}"
        self.dlpack = CUDA, number
        self._cuda = cuda = driver.load()
        self._device = driver.check_device(cuda, number)
        self._lock, self._depth = threading.RLock(), 0
        self.lost = ""
        self.inherited = False  # whether the context is a parent process's
        major, minor = self._device.compute_capability()
        self.sm = 10 * major + minor
        self.multiprocessors = int(self._device.multiprocessor_count)
        self.driver = int(cuda.get_driver_version())
        self._stream: Any = None
        self._mark = ctypes.c_void_p()  # an event: where a stream is that another one is to wait for
        self._staging: list[_Staging] = []
        self._segments: dict[int, Any] = {}
        self._pinned: dict[int, Array] = {}  # by address
        self._unpinned: dict[int, list[int]] = {}  # bytes -> addresses that nobody uses
        self._kernels: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._modules: list[Any] = []
        self._graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        self._capturing: Graph | None = None
        self._recording = False  # whether there is a capture, which must not be waited for
        self.pool = Pool(self._reserve, self._release, preallocate >= 0)
        self._context = self._primary_context()
        try:
            self._begin(preallocate)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)  # behind pycuda's own hook, so it runs first

    def _primary_context(self) -> Any:
        try:
            return self._device.retain_primary_context()
        except self._cuda.MemoryError as e:
            raise DeviceMemoryError(self._short()) from e
        except self._cuda.Error as e:
            raise DeviceError(
                f"{self.name}, {self._device.name()}, cannot be opened ({e}): see with nvidia-smi whether another program has it "
                f"for itself, and whether it is in order, {driver.OTHERWISE}"
            ) from e

    def _begin(self, preallocate: float) -> None:
        with self:
            # CU_STREAM_NON_BLOCKING: torch's default stream does not hold it up
            self._stream = self._cuda.Stream(1)
            self._staging += [_Staging(self._cuda) for _ in range(2)]
            if preallocate <= 0:
                return
            _, total = self._cuda.mem_get_info()
            try:
                self.pool.preallocate(int(preallocate * (total if preallocate < 1 else 1 << 20)))
            except DeviceMemoryError as e:
                raise DeviceMemoryError(f"{e}. gpuarray.preallocate={preallocate:g} asks for it") from e

    # -- the context -----------------------------------------------------------------------------------------------

    def __enter__(self) -> CudaDevice:
        self._lock.acquire()
        try:
            if self.lost:
                raise DeviceLost(self.lost)
            if not self._depth:
                self._context.push()
            self._depth += 1
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and isinstance(error, self._cuda.Error | RuntimeError):
                self._explain(error)
        finally:
            self._depth -= 1
            if not self._depth:
                self._context.pop()
            self._lock.release()

    def _explain(self, error: BaseException) -> None:
        """Raises what a driver's error means; returns for others."""
        if isinstance(error, DeviceError):
            return
        if isinstance(error, self._cuda.MemoryError):
            raise DeviceMemoryError(self._short()) from error
        if not isinstance(error, self._cuda.Error | GraphError):
            return
        try:
            if not self._recording:
                self._context.synchronize()
        except self._cuda.Error as again:  # it stays: nothing works in this context any more
            self.lost = (
                f"{self.name} is lost ({again}): what it held is gone. Start the process anew; functions for the CPU go on. "
                "compute-sanitizer finds a kernel's bad access; dmesg tells of the hardware's faults"
            )
            raise DeviceLost(self.lost) from error
        raise DeviceError(f"{self.name}: {error}") from error

    def _short(self, bytes: int = 0) -> str:
        try:
            free, total = self._cuda.mem_get_info()
            left = f"{free:,} of {total:,} bytes are free"
        except self._cuda.Error:
            left = "how much is free cannot be said"
        wanted = f"{bytes:,} bytes are wanted" if bytes else "memory is wanted"
        return (
            f"{self.name} is out of memory: {wanted}, {left}, and tcc holds {self.pool.held:,}. Take smaller batches, free "
            "shared variables, or see with nvidia-smi which other program uses the device"
        )

    def close(self) -> None:
        """Drops what it owns; the process may go on without the device."""
        if self._stream is None or self.inherited:
            return
        with self._lock:
            try:
                self._context.push()
            except self._cuda.Error:
                return
            try:
                if not self.lost:
                    self._stream.synchronize()
                for graph in list(self._graphs):
                    graph.close()
                if self._mark:
                    do("cuEventDestroy_v2", self._mark)
            except RuntimeError:
                pass  # the device is lost, and its memory with it
            self._kernels.clear()
            self._modules.clear()
            self._staging.clear()
            self._segments.clear()
            self._pinned.clear()
            self._stream = None
            self._context.pop()
            self._context.detach()
            _open.pop(self.number, None)

    # -- memory ----------------------------------------------------------------------------------------------------

    def _reserve(self, bytes: int) -> int:
        try:
            memory = self._cuda.mem_alloc(bytes)
        except self._cuda.MemoryError as e:
            raise DeviceMemoryError(self._short(bytes)) from e
        self._segments[int(memory)] = memory
        return int(memory)

    def _release(self, address: int) -> None:
        self._stream.synchronize()  # what still runs may use it
        self._segments.pop(address).free()

    def alloc(self, bytes: int) -> int:
        """DeviceMemoryError if there is not as much."""
        with self:
            return self.pool.alloc(bytes)

    def free(self, address: int) -> None:
        """Also of a device that is lost or closed, where it does nothing."""
        with self._lock:
            if not self.lost and self._stream is not None:
                self.pool.free(address)

    def to_device(self, address: int, source: Array) -> None:
        """`source` may be changed at once."""
        data = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
        with self:
            for number, start in enumerate(range(0, data.size, STAGING)):
                part = data[start : start + STAGING]
                staging = self._staging[number % 2]
                staging.wait()
                staging.busy = True
                pinned = staging.memory[: part.size]
                pinned[:] = part
                self._cuda.memcpy_htod_async(address + start, pinned, self._stream)
                staging.event.record(self._stream)

    def to_host(self, target: Array, address: int) -> None:
        """Waits for everything that was asked for before."""
        data = target.reshape(-1).view(np.uint8)  # of contiguous memory, so no copy
        with self:
            if data.size <= STAGING:
                pinned = self._staging[0].memory[: data.size]
                self._cuda.memcpy_dtoh_async(pinned, address, self._stream)
                self._stream.synchronize()
                for staging in self._staging:
                    staging.busy = False
                data[:] = pinned
                return
            parts = [slice(s, min(s + STAGING, data.size)) for s in range(0, data.size, STAGING)]
            for number, part in enumerate(parts):
                self._fetch(number, part, address)
                if number:  # the part before lands while this one travels
                    self._land(number - 1, parts[number - 1], data)
            self._land(len(parts) - 1, parts[-1], data)

    def _fetch(self, number: int, part: slice, address: int) -> None:
        staging = self._staging[number % 2]
        self._cuda.memcpy_dtoh_async(
            staging.memory[: part.stop - part.start], address + part.start, self._stream
        )
        staging.event.record(self._stream)

    def _land(self, number: int, part: slice, data: Array) -> None:
        staging = self._staging[number % 2]
        staging.event.synchronize()
        data[part] = staging.memory[: part.stop - part.start]

    def copy(self, target: int, source: int, bytes: int) -> None:
        if bytes:
            with self:
                self._cuda.memcpy_dtod_async(target, source, bytes, self._stream)

    def pin(self, bytes: int) -> Array:
        """Memory of the host's that copies may use while the caller goes on, until `unpin`."""
        size = 1 << max(bytes - 1, 255).bit_length()
        with self:
            waiting = self._unpinned.setdefault(size, [])
            if waiting:
                address = waiting.pop()
            else:
                memory = self._cuda.pagelocked_empty(size, np.uint8)
                address = int(memory.ctypes.data)
                self._pinned[address] = memory
        whole: Array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return whole[:bytes]

    def unpin(self, address: int) -> None:
        """Also of a device that is lost or closed."""
        with self._lock:
            if address in self._pinned:
                self._unpinned[self._pinned[address].size].append(address)

    def send(self, address: int, pinned: Array) -> None:
        """Copies what `pin` gave to the device, without waiting."""
        with self:
            self._cuda.memcpy_htod_async(address, pinned, self._stream)

    def fetch(self, pinned: Array, address: int) -> None:
        with self:
            self._cuda.memcpy_dtoh_async(pinned, address, self._stream)

    # -- kernels ---------------------------------------------------------------------------------------------------

    def tensor_map(self, address: int, map: TensorMap, sizes: Mapping[str, int]) -> list[int]:
        with self:
            return tensor_map(address, map, sizes)

    def launch(self, kernel: DeviceKernel, grid: tuple[int, int, int], arguments: Sequence[int]) -> None:
        with self:
            function = self.prepare(kernel)
            packed = np.array(arguments, np.int64)
            function._launch_kernel(grid, (kernel.block, 1, 1), packed, kernel.shared, self._stream)
            if self._capturing is not None:
                self._capturing.note()

    def prepare(self, kernel: DeviceKernel) -> Any:
        """The kernel as the driver has it."""
        with self:
            return self._kernels.get(kernel.text) or self._load(kernel)

    def _load(self, kernel: DeviceKernel) -> Any:
        module = self._module(kernel)
        function = module.get_function(kernel.name)
        if kernel.shared > 48 << 10:
            attribute = self._cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            function.set_attribute(attribute, kernel.shared)
        self._modules.append(module)
        self._kernels[kernel.text] = function
        return function

    def _module(self, kernel: DeviceKernel) -> Any:
        """DeviceError, with the assembler's log, names a kernel that the driver does not take."""
        for code in codes(kernel.text, self.sm, self.driver):
            log: list[str] = []

            def note(compiled: bool, info: str, errors: str) -> None:
                log.extend(text for text in (errors, info) if text)

            try:
                return self._cuda.module_from_buffer(code, message_handler=note)
            except self._cuda.MemoryError:
                raise
            except self._cuda.Error as e:
                refused, said = e, "\n".join(log).strip() or str(e)
        raise DeviceError(
            f"{self.name} does not take the kernel {kernel.name} ({kernel.what or 'of the user'}): {said}"
        ) from refused

    def compile_c(self, source: str) -> str:
        """The PTX of CUDA C, by nvcc through pycuda, which keeps it on disk; DeviceError with the compiler's words."""
        known = self._sources.get(source)
        if known is None:
            from pycuda import compiler

            if shutil.which("nvcc") is None:
                raise DeviceError(
                    "CUDA C needs nvcc, which is not found: install the CUDA toolkit, and put its bin into PATH"
                )
            with self:
                try:
                    made = compiler.compile(source, arch=f"sm_{self.sm}", target="ptx", no_extern_c=True)
                except self._cuda.CompileError as e:
                    raise DeviceError(f"nvcc does not take the source:\n{e}") from None
            known = self._sources[source] = made.decode()
        return known

    def synchronise(self) -> None:
        with self:
            self._stream.synchronize()

    def wait(self) -> None:
        """The same, within `with device:`."""
        self._stream.synchronize()

    def settle(self) -> None:
        """Waits for all streams of the context, other frameworks' among them."""
        with self:
            self._context.synchronize()

    def follow(self, stream: int) -> None:
        """What the device is given from now on waits for another framework's stream; 1 and 2 are CUDA's default ones."""
        self._order(stream, self.stream)

    def precede(self, stream: int) -> None:
        """What another framework's stream is given from now on waits for what the device was given before."""
        self._order(self.stream, stream)

    def _order(self, first: int, then: int) -> None:
        with self:
            if not self._mark:
                do("cuEventCreate", ctypes.byref(self._mark), UNTIMED)
            do("cuEventRecord", self._mark, ctypes.c_void_p(first))
            # for this record, not for later ones
            do("cuStreamWaitEvent", ctypes.c_void_p(then), self._mark, 0)

    def owns(self, address: int) -> bool:
        """Whether it is an address of this device's memory."""
        with self:
            number = ctypes.c_int(-1)
            ordinal, pointer = 9, ctypes.c_uint64(address)  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
            status = driver.library().cuPointerGetAttribute(ctypes.byref(number), ordinal, pointer)
            return status == 0 and number.value == self.number

    @property
    def stream(self) -> int:
        """Its handle, for others who would wait for it."""
        return int(self._stream.handle)

    @contextmanager
    def captured(self, patched: bool = False) -> Iterator[Graph]:
        """What is launched and copied inside becomes a graph instead of being done.

        No garbage is collected meanwhile: what it holds of a device may have to be waited for, which spoils a capture.
        """
        with self, uncollected():
            try:
                with capture(self.stream) as graph:
                    self._capturing, self._recording = graph if patched else None, True
                    yield graph
            finally:
                self._capturing, self._recording = None, False
        self._graphs.add(graph)

    def launches(self, graph: Graph) -> int:
        return len(graph.nodes)

    def patch(
        self,
        graph: Graph,
        number: int,
        kernel: DeviceKernel,
        grid: tuple[int, int, int],
        arguments: Sequence[int],
    ) -> None:
        graph.patch(number, grid, arguments)

    def replay(self, graph: Graph) -> None:
        """Within `with device:`."""
        graph.launch()

    def timed(self, work: Callable[[], None]) -> float:
        """Seconds that the device takes for what `work` gives it."""
        with self:
            start, stop = self._cuda.Event(), self._cuda.Event()
            start.record(self._stream)
            work()
            stop.record(self._stream)
            stop.synchronize()
            return float(stop.time_since(start)) / 1e3

    def __reduce__(self) -> tuple[Any, ...]:
        return open_device, (self.number,)

    def __repr__(self) -> str:
        return f"<{self.name}: {self._device.name()}, sm_{self.sm}>"


class _Staging:
    """Pinned memory on the way to or from the device, and when the last copy is over."""

    def __init__(self, cuda: Any) -> None:
        self.memory: Array = cuda.pagelocked_empty(STAGING, np.uint8)
        self.event = cuda.Event(cuda.event_flags.DISABLE_TIMING)
        self.busy = False  # whether a copy may still be on its way

    def wait(self) -> None:
        if self.busy:
            self.event.synchronize()
