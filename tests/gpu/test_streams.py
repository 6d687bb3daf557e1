"""What is asked of the driver: which context, which streams, whose work waits for whose, and what is loaded; by the stand-in's trace
of calls."""

from __future__ import annotations

from pathlib import Path

import pytest
import standin

START = """
import numpy as np, tcc, tcc.tensor as T
from standin_kernels import *
from tcc.runtime.device_arrays import DeviceArray

library.standin_trace.restype = ctypes.c_char_p

def calls(*names):
    '''Those since the last time: name, and two arguments; of all, or of these names.'''
    lines = [line.split() for line in library.standin_trace().decode().splitlines()]
    return [(n, int(a, 16), int(b, 16)) for n, a, b in lines if not names or n in names]

device = tcc.devices.open_device('cuda')
opened, STREAM = calls(), device.stream
x, given = T.vector('x', dtype='float32'), np.arange(5, dtype=np.float32)
"""
PROGRAM = """
WORK = "cuLaunchKernel cuGraphLaunch cuMemcpyHtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuStreamBeginCapture_v2".split()
ORDER = "cuEventRecord cuStreamWaitEvent cuStreamSynchronize cuCtxSynchronize".split()

def say(fact, *values): print(fact, *values, sep=": ")
def order(): return [(n, a, b) if n == "cuEventRecord" else (n, b, a) for n, a, b in calls(*ORDER)]  # event, stream

say("opened", [c for c in opened if "Ctx" in c[0]], [flags for n, _, flags in opened if n == "cuStreamCreate"])

w = tcc.shared(np.ones(5, np.float32), target='cuda')
f = tcc.function([x], (w * x).sum(), updates=[(w, w + x)])
for _ in range(2): f(given)
w.get_value()
found = calls(*WORK)
say("work", {n for n, *_ in found} == set(WORK), {stream for _, stream, _ in found} == {STREAM})

f(given)
calls()
f(given)
say("captured", [n for n, *_ in calls()])

y = DeviceArray.of(device, given)
calls()
for stream in (None, 1, 2, 0x5550):
    y.__dlpack__(stream=stream)
    (record, event, own), (wait, same, theirs) = order()
    say("lent", record, own == STREAM, wait, theirs, event == same)
y.__dlpack__(stream=-1)
say("lent", order())

asked = []
class Packed:
    def __dlpack__(self, stream=None, **more):
        asked.append(stream)
        return y.__dlpack__(stream=-1)
    def __dlpack_device__(self): return y.__dlpack_device__()
class Shown:
    def __init__(self, **more): self.__cuda_array_interface__ = interface | more

interface = y.__cuda_array_interface__
say("shown", interface["version"], interface["stream"], [n for n, *_ in order()])
DeviceArray.from_other(device, Packed())
say("taken", asked == [STREAM], order())
for stream in (1, 2, 0x5550, None):
    DeviceArray.from_other(device, Shown(stream=stream))
    say("taken", [(n, "own" if s == STREAM else s) for n, _, s in order()])

device.close()
say("closed", [c for c in calls() if "Primary" in c[0]])
"""


@pytest.fixture(scope="module")
def said() -> list[list[str]]:
    return [line.split(": ") for line in standin.run(START + PROGRAM).splitlines()]


def of(said: list[list[str]], fact: str) -> list[list[str]]:
    return [values for name, *values in said if name == fact]


def test_the_context_is_the_primary_one_and_goes_back(said: list[list[str]]) -> None:
    """The stand-in has no cuCtxCreate, so no other could be made; 1 is CU_STREAM_NON_BLOCKING."""
    assert of(said, "opened") == [["[('cuDevicePrimaryCtxRetain', 0, 0)]", "[1]"]]
    assert of(said, "closed") == [["[('cuDevicePrimaryCtxRelease_v2', 0, 0)]"]]


def test_all_work_is_given_to_one_stream(said: list[list[str]]) -> None:
    assert of(said, "work") == [["True", "True"]]


def test_a_captured_call_is_two_calls_of_the_driver(said: list[list[str]]) -> None:
    assert of(said, "captured") == [["['cuGraphLaunch', 'cuStreamSynchronize']"]]


def test_dlpacks_stream_waits_for_what_was_computed(said: list[list[str]]) -> None:
    """And the host for nothing.  None is the default stream, -1 asks for no order."""
    waits = [["cuEventRecord", "True", "cuStreamWaitEvent", str(s), "True"] for s in (1, 1, 2, 0x5550)]
    assert of(said, "lent") == [*waits, ["[]"]]


def test_a_producers_stream_is_waited_for_on_the_device(said: list[list[str]]) -> None:
    """DLPack's producers are told the stream; version 3 of the CUDA array interface names theirs, and tcc's has waited."""
    assert of(said, "shown") == [["3", "None", "['cuStreamSynchronize']"]]
    waits = [[f"[('cuEventRecord', {s}), ('cuStreamWaitEvent', 'own')]"] for s in (1, 2, 0x5550)]
    assert of(said, "taken") == [["True", "[]"], *waits, ["[]"]]


def test_machine_code_is_kept_from_one_process_to_the_next(tmp_path: Path) -> None:
    program = """
f = tcc.function([x], x * 2 + 1, device='cuda')
assert f(given).tolist() == [1, 3, 5, 7, 9]
print([(name, cubin) for name, cubin, _ in calls("cuLinkComplete", "cuModuleLoadDataEx")])
"""
    own, loaded = {"TCC_CACHE_DIR": str(tmp_path)}, "('cuModuleLoadDataEx', 1)"
    assert standin.run(START + program, **own) == f"[('cuLinkComplete', 0), {loaded}]"
    assert standin.run(START + program, **own) == f"[{loaded}]"
    other = standin.run(START + program, **own, STANDIN_SM="80", STANDIN_FAULT="cuLinkCreate_v2:1")
    assert other == "[('cuModuleLoadDataEx', 0)]"  # another architecture; where nothing is linked, the PTX


def test_kept_machine_code_that_the_driver_refuses_is_made_anew(tmp_path: Path) -> None:
    spoil = """
from tcc.runtime import cache
put = cache.put
bad = b"\\x7fELF STANDIN_REFUSES\\0"
cache.put = lambda key, data: put(key, bad if data[:1] == bad[:1] and b".entry" in data else data)
"""
    program = """
f = tcc.function([x], x * 2 + 1, device='cuda')
assert f(given).tolist() == [1, 3, 5, 7, 9]
print([name for name, *_ in calls("cuLinkComplete", "cuModuleLoadDataEx")])
"""
    own, made = {"TCC_CACHE_DIR": str(tmp_path)}, "['cuLinkComplete', 'cuModuleLoadDataEx']"
    assert standin.run(START + spoil + program, **own) == made
    refused = "['cuModuleLoadDataEx', 'cuLinkComplete', 'cuModuleLoadDataEx']"
    assert standin.run(START + program, **own) == refused
    assert standin.run(START + program, **own) == "['cuModuleLoadDataEx']"


def test_blocks_that_stay_are_as_many_as_the_device_has_multiprocessors() -> None:
    program = """
from tcc.codegen.gpu import hopper
hopper.LEAST_TILES = hopper.LEAST_ROWS = 1
a, b = T.matrices('a', 'b', dtype='float16')
f = tcc.function([a, b], T.dot(a, b), device='cuda')
u, v = (np.random.default_rng(0).normal(size=s).astype(np.float16) for s in ((640, 64), (64, 256)))
for _ in range(2):
    np.testing.assert_allclose(f(u, v), u.astype('f4') @ v.astype('f4'), rtol=2e-3, atol=2e-2)
print({blocks for _, _, blocks in calls("cuLaunchKernel")}, "device.multiprocessors" in f.program.text("plan"))
"""
    assert standin.run(START + program, STANDIN_MULTIPROCESSORS="3") == "{3} True"
