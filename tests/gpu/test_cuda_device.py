"""pycuda, unmodified, on a stand-in for the driver: memory, copies, launches, graphs, and every way in which they fail."""

from __future__ import annotations

import standin

OPEN = """
import ctypes, numpy as np
from tcc.runtime.cuda.device import open_device
from tcc.runtime.devices import DeviceError, DeviceLost, DeviceMemoryError
from tcc.runtime.device_program import DeviceKernel
from tcc.runtime.cuda import driver

library = ctypes.CDLL("libcuda.so.1")
count = library.standin_count
count.restype = ctypes.c_long

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
def launch(name, dims, params, bytes, shared):
    '''Adds the second argument, once a thread, to the i64 at the first.'''
    args = np.frombuffer(ctypes.string_at(params, bytes), np.int64)
    cell = ctypes.c_int64.from_address(int(args[0]))
    cell.value += int(args[1]) * int(np.prod([dims[i] for i in range(6)]))
    return 0

library.standin_set_launch(launch)
ADD = DeviceKernel("add", ".visible .entry add(", 32, 2)
"""
FAILS = """
try:
    {0}
except DeviceError as e:
    print(type(e).__name__, e)
"""


def failing(statement: str, **environment: str) -> str:
    return standin.run(OPEN + FAILS.format(statement), **environment)


def test_copies_of_any_size_come_back() -> None:
    program = """
from tcc.runtime.cuda.device import STAGING
with open_device(0) as d:
    for n in (0, 1, 7, STAGING, 2 * STAGING + 3, 5 * STAGING - 1):
        x = np.random.default_rng(n).integers(0, 255, n).astype(np.uint8)
        p, q = d.alloc(max(n, 1)), d.alloc(max(n, 1))
        d.to_device(p, x)
        d.copy(q, p, n)
        y = np.empty_like(x)
        d.to_host(y, q)
        assert np.array_equal(x, y), n
        d.free(p); d.free(q)
    assert d.pool.used == 0 and count(4) > 0
    d.pool.trim()
    print(count(4))
"""
    assert standin.run(OPEN + program) == "0"


def test_kernels_get_their_grid_and_arguments() -> None:
    program = """
d = open_device(0)
p = d.alloc(8)
d.to_device(p, np.array([5]))
d.launch(ADD, (2, 3, 1), (p, 10))
x = np.empty(1, np.int64)
d.to_host(x, p)
print(x[0], d.sm, open_device(0) is d)
"""
    assert standin.run(OPEN + program) == f"{5 + 10 * 2 * 3 * 32} 90 True"


def test_a_graph_does_again_what_was_captured() -> None:
    program = """
d = open_device(0)
p, q = d.alloc(8), d.alloc(8)
d.to_device(p, np.array([0]))
with d.captured() as graph:
    d.launch(ADD, (1, 1, 1), (p, 1))
    d.copy(q, p, 8)
before = count(0)
with d:
    for _ in range(3):
        d.replay(graph)
x = np.empty(1, np.int64)
d.to_host(x, q)
print(before, x[0], count(1))
"""
    assert standin.run(OPEN + program) == "0 96 3"


def test_memory_that_is_preallocated_is_one_segment() -> None:
    program = """
d = open_device(0, preallocate=64)
held = count(4)
a = [d.alloc(1 << 20) for _ in range(50)]
print(held >> 20, count(4) >> 20)
"""
    assert standin.run(OPEN + program) == "64 64"


def test_another_frameworks_array_is_taken_as_it_lies() -> None:
    program = """
from tcc.runtime.device_arrays import DeviceArray

class Foreign:
    def __init__(self, array): self.array = array
    def __dlpack__(self, **more): return self.array.__dlpack__(**more)
    def __dlpack_device__(self): return self.array.__dlpack_device__()

d = open_device(0)
a = DeviceArray.of(d, np.arange(6.0).reshape(2, 3))
b = DeviceArray.from_other(d, Foreign(a))
print(b.address == a.address, a.__cuda_array_interface__["data"] == (a.address, False), a.__dlpack_device__())
del a
print(b.get().tolist(), d.pool.used > 0)
del b
print(d.pool.used)
"""
    assert standin.run(OPEN + program) == "True True (2, 0)\n[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] True\n0"


def test_memory_that_a_framework_refuses_is_given_back() -> None:
    program = """
from tcc.runtime.device_arrays import DeviceArray
d = open_device(0)
a = DeviceArray.of(d, np.arange(3.0))
try:
    np.from_dlpack(a)
except (RuntimeError, SystemError):  # of another device's array
    print(np.asarray(a), d.pool.used > 0)
del a
print(d.pool.used)
"""
    assert standin.run(OPEN + program) == "[0. 1. 2.] True\n0"


NO_DRIVER = """
import ctypes
def missing(name, *more, **even_more): raise OSError(name)
ctypes.CDLL = missing
"""


def test_no_driver() -> None:
    program = (
        NO_DRIVER
        + """
from tcc.runtime.cuda import driver
from tcc.runtime.devices import DeviceError
try:
    driver.load()
except DeviceError as e:
    print(e)
"""
    )
    assert "install the driver of your GPU" in standin.run(program, library=False)


def test_no_pycuda() -> None:
    program = "import sys; sys.modules['pycuda'] = sys.modules['pycuda.driver'] = None\n"
    assert "pip install tcc[cuda]" in standin.run(program + OPEN + FAILS.format("open_device(0)"))


def test_no_device() -> None:
    assert "CUDA_VISIBLE_DEVICES" in failing("open_device(0)", STANDIN_DEVICES="0")


def test_no_device_of_that_number() -> None:
    assert "no device cuda2: there are cuda0 to cuda1" in failing("open_device(2)", STANDIN_DEVICES="2")


def test_too_old_a_driver() -> None:
    got = failing("open_device(0)", STANDIN_DRIVER="11040")
    assert "the NVIDIA driver is for CUDA 11.4, and 11.8 is the least: update the driver" in got


def test_too_old_a_device() -> None:
    assert "has compute capability 6.1, and 7.0 is the least" in failing("open_device(0)", STANDIN_SM="61")


def test_a_driver_that_does_not_start() -> None:
    assert "error 999: an error" in failing("open_device(0)", STANDIN_FAULT="cuInit:999")


def test_out_of_memory_says_how_much_there_is() -> None:
    got = failing("open_device(0).alloc(1 << 30)", STANDIN_MEMORY=str(1 << 28))
    assert got.startswith(
        "DeviceMemoryError cuda0 is out of memory: 1,073,741,824 bytes are wanted, 268,435,456 of"
    )


def test_what_is_kept_goes_back_before_memory_is_said_to_be_out() -> None:
    program = """
d = open_device(0)
a = d.alloc(200 << 20)
d.free(a)
d.alloc(250 << 20)
print(count(4) >> 20)
"""
    assert standin.run(OPEN + program, STANDIN_MEMORY=str(1 << 28)) == "250"


def test_a_lost_device_says_so_at_each_call_and_lets_go() -> None:
    program = """
d = open_device(0)
p = d.alloc(8)
for _ in range(2):
    try:
        d.launch(ADD, (1, 1, 1), (p, 1))
    except DeviceLost as e:
        print("start the process anew" in str(e).lower())
d.free(p)
"""
    assert standin.run(OPEN + program, STANDIN_FAULT="cuLaunchKernel:719") == "True\nTrue"


def test_a_failure_that_passes_is_no_loss() -> None:
    got = failing("open_device(0).launch(ADD, (1, 1, 1), (0, 1))", STANDIN_FAULT="cuLaunchKernel:1")
    assert got.startswith("DeviceError cuda0:")


def test_the_assemblers_log_names_the_kernel() -> None:
    statement = "open_device(0).launch(DeviceKernel('k', 'STANDIN_REFUSES', 32, 0, 0, 'fuse of x + 1'), (1, 1, 1), ())"
    assert "does not take the kernel k (fuse of x + 1): ptxas: line 1; error: unknown opcode" in failing(
        statement
    )


def test_memory_that_cannot_be_preallocated_lets_the_device_go() -> None:
    program = """
for share in (512, 64):
    try:
        print(open_device(0, share).name, count(4) >> 20)
    except DeviceMemoryError as e:
        print(e, count(4))
"""
    refused, opened = standin.run(OPEN + program, STANDIN_MEMORY=str(1 << 28)).splitlines()
    assert refused.endswith("gpuarray.preallocate=512 asks for it 0") and opened == "cuda0 64"


def test_a_context_that_is_refused() -> None:
    full = failing("open_device(0)", STANDIN_FAULT="cuDevicePrimaryCtxRetain:2")
    assert full.startswith("DeviceMemoryError cuda0 is out of memory: memory is wanted, how much is free")
    taken = failing("open_device(0)", STANDIN_FAULT="cuDevicePrimaryCtxRetain:46")
    assert taken.startswith("DeviceError cuda0, stand-in 0, cannot be opened (") and "nvidia-smi" in taken
    pinned = failing("open_device(0)", STANDIN_FAULT="cuMemHostAlloc:2")
    assert pinned.startswith("DeviceMemoryError cuda0 is out of memory")


DOCTOR = (
    "from tcc.tools.doctor import accelerator\nproblems = []\nfor row in accelerator(problems): print(*row)\n"
)


def test_doctor_tries_each_device() -> None:
    program = "from standin_kernels import *\n" + DOCTOR + "assert not problems"
    got = standin.run(program, STANDIN_DEVICES="2")
    assert got.startswith(
        "gpu driver CUDA 13.0\ncuda0 stand-in 0; compiles and runs: yes\ncuda1 stand-in 1; compiles and runs: yes\ncuda toolkit"
    )
    old = standin.run(program, STANDIN_SM="61")
    assert "cuda0 stand-in 0; compiles and runs: no; cuda0, stand-in 0, has compute capability 6.1" in old
    lost = standin.run(program, STANDIN_FAULT="cuLaunchKernel:719")
    assert "cuda0 stand-in 0; compiles and runs: no; cuda0 is lost" in lost


def test_doctor_says_what_is_missing() -> None:
    assert "finds no GPU" in standin.run(DOCTOR, STANDIN_DEVICES="0")
    assert "is for CUDA 11.4, and 11.8 is the least" in standin.run(DOCTOR, STANDIN_DRIVER="11040")
    hide = "import sys; sys.modules['pycuda'] = sys.modules['pycuda.driver'] = None\n"
    got = standin.run(hide + DOCTOR)
    assert got.startswith(
        "gpu driver CUDA 13.0\ncuda0 stand-in 0\ngpu pycuda is not installed: `pip install tcc[cuda]`"
    )
    hide = "from tcc.runtime.cuda import driver\n" + NO_DRIVER
    assert "there is no NVIDIA driver" in standin.run(hide + DOCTOR, library=False)
