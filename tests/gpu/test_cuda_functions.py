"""Functions on cuda0, through PTX and unmodified pycuda, with a stand-in for the driver that runs kernels on the emulator."""

from __future__ import annotations

import shutil

import pytest
import standin

START = """
import os
import numpy as np, tcc, tcc.tensor as T
from standin_kernels import *
from tcc.runtime.devices import DeviceError, DeviceLost

rng = np.random.default_rng(0)
def f32(*shape): return rng.normal(size=shape).astype(np.float32)
"""


def run(program: str, **environment: str) -> str:
    return standin.run(START + program, **environment)


def test_training_gives_the_cpus_results_and_is_one_graph_a_call() -> None:
    program = """
X, Y = f32(11, 13), np.eye(5, dtype=np.float32)[rng.integers(0, 5, 11)]
start = f32(13, 7), f32(7), f32(7, 5)

def trained(device):
    x, y = T.matrix('x', dtype='float32'), T.matrix('y', dtype='float32')
    W, b, V = ws = [tcc.shared(v, target=device) for v in start]
    p = T.nnet.softmax(T.dot(T.tanh(T.dot(x, W) + b), V))
    cost = T.nnet.categorical_crossentropy(p, y).mean()
    f = tcc.function([x, y], cost, updates=[(w, w - np.float32(0.1) * g) for w, g in zip(ws, tcc.grad(cost, ws))])
    costs = [float(f(X, Y)) for _ in range(4)]
    return costs, [w.get_value() for w in ws]

(here, there) = trained('cpu'), trained('cuda')
np.testing.assert_allclose(here[0], there[0], rtol=1e-5)
for a, b in zip(here[1], there[1]):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
print(count(GRAPH_LAUNCHES), all(".entry" in k for k in tcc.devices.open_device("cuda")._kernels))
"""
    assert run(program) == "3 True"


def test_a_captured_call_follows_other_sizes_values_and_inputs_of_the_device() -> None:
    program = """
x = T.vector('x', dtype='float32')
w = tcc.shared(f32(4), target='cuda')
f = tcc.function([x], [x * w, (x + w).transfer('cuda')], updates=[(w, w + 1)])
for turn in range(8):
    if turn == 4: w.set_value(f32(4))
    if turn == 6: w.set_value(f32(9))
    given, now = f32(9 if turn >= 6 else 4), w.get_value()
    here, there = f(given)
    np.testing.assert_array_equal(here, given * now)
    np.testing.assert_array_equal(there.get(), given + now)
    kept = there if turn == 2 else kept if turn > 2 else None
    if turn == 2: wanted = there.get()
np.testing.assert_array_equal(kept.get(), wanted)  # outputs are not overwritten by later calls
here, there = f(there)
np.testing.assert_array_equal(w.get_value(), now + 2)
print(count(GRAPH_LAUNCHES) > 3)
"""
    assert run(program) == "True"


def test_garbage_that_is_waited_for_does_not_spoil_a_graph() -> None:
    """An array that was lent is waited for before its memory goes back, which no capture takes."""
    program = """
import gc
x = T.vector('x', dtype='float32')
f = tcc.function([x], [(x + 1).transfer('cuda'), x * 2], device='cuda')
given = f32(9)
class Knot: pass
from tcc.runtime.cuda.device import CudaDevice
launch = CudaDevice.launch
def collecting(*args):
    gc.set_threshold(1)
    [[] for _ in range(100)]
    return launch(*args)
CudaDevice.launch = collecting
for turn in range(3):
    lent = f(given)[0].copy()
    lent.__dlpack__()
    gc.set_threshold(0)
    knot = Knot()
    knot.self, knot.lent = knot, lent
    del knot, lent
    given = f32(9 + turn)
    for again in range(2):  # the second call is captured
        there, here = f(given)
        gc.set_threshold(0)
        np.testing.assert_array_equal(there.get(), given + 1)
        np.testing.assert_array_equal(here, given * 2)
print(count(GRAPH_LAUNCHES) > 0, gc.isenabled())
"""
    assert run(program) == "True True"


def test_a_launch_that_fails_while_it_is_captured_is_no_loss() -> None:
    program = """
x = T.vector('x', dtype='float32')
f = tcc.function([x], x * 2, device='cuda')
given = f32(9)
f(given)
os.environ['STANDIN_FAULT'] = 'cuLaunchKernel:1'
try:
    f(given)
except DeviceError as e:
    print(type(e).__name__, 'invalid argument' in str(e))
del os.environ['STANDIN_FAULT']
for turn in range(2):
    np.testing.assert_array_equal(f(given), given * 2)
print(count(GRAPH_LAUNCHES))
"""
    assert run(program) == "DeviceError True\n2"


def test_minibatches_by_index_are_one_graph_whose_nodes_are_patched() -> None:
    program = """
images, y, index, x = f32(22, 3), T.lvector('y'), T.lscalar('index'), T.matrix('x', dtype='float32')
labels, steps = rng.integers(0, 2, 22), []
for where in ('cpu', 'cuda'):
    w, rows = tcc.shared(np.zeros((3, 2), np.float32)), slice(index * 4, (index + 1) * 4)
    cost = T.nnet.categorical_crossentropy(T.nnet.softmax(T.dot(x, w)), y).mean()
    givens = {x: tcc.shared(images)[rows], y: tcc.shared(labels)[rows]}
    steps.append((tcc.function([index], cost, updates=[(w, w - tcc.grad(cost, w))], givens=givens, device=where), w))
(here, w), (there, v) = steps
for k in (0, 3, 1, 4, 2):
    np.testing.assert_allclose(there(k), here(k), rtol=1e-5)
    np.testing.assert_allclose(v.get_value(), w.get_value(), rtol=1e-4, atol=1e-6)
kept = there.variant.graphs[-1]
there(0)
print(there.variant.graphs[-1] is kept, count(GRAPH_LAUNCHES) >= 4)
"""
    assert run(program) == "True True"


def test_values_that_the_host_sets_need_no_new_graph() -> None:
    program = """
rate, w = tcc.shared(np.float32(1)), tcc.shared(f32(4), target='cuda')
f = tcc.function([], updates=[(w, w * rate)])
f(); f()
kept = f.variant.graphs[-1]
for turn in range(3):
    rate.set_value(np.float32(turn))
    f()
print(f.variant.graphs[-1] is kept, np.abs(w.get_value()).tolist())
"""
    assert run(program) == "True [0.0, 0.0, 0.0, 0.0]"


def test_checks_are_looked_at_once_and_leave_the_state() -> None:
    """Three checks: the graph runs up to where the state is written, which is another."""
    program = """
i, j = T.lvectors('i', 'j')
start = f32(5, 3)
w = tcc.shared(start, target='cuda')
f = tcc.function([i, j], (w[i] * w[j]).sum(), updates=[(w, T.inc_subtensor(w[j], 1))])
good, outs = np.array([0, 4, -5]), []
for _ in range(3): f(good, good)
want, before, copied = w.get_value(), count(GRAPH_LAUNCHES), count(COPIES_OUT)
for given in ((good, good + 1), (good - 1, good), (good + 1, good + 7)):
    try: f(*given)
    except IndexError as e: print(str(e).splitlines()[0].replace("out of bounds ", ""))
print((w.get_value() == want).all(), count(GRAPH_LAUNCHES) - before, count(COPIES_OUT) - copied)
f(good, good)
print((w.get_value() != want).any(), f.variant.program.segments.__len__())
empty = tcc.function([i], T.zeros((0, 3))[i], device='cuda')
print(empty(good[:0]).shape)
try: empty(good)
except IndexError as e: print("size 0" in str(e))
"""
    got = run(program).splitlines()
    assert [line.split("index ")[1].split(" ")[0] for line in got[:3]] == ["5", "-6", "5"]
    assert got[3:] == ["True 3 3", "True 3", "(0, 3)", "True"]


def test_products_of_halves_take_tensor_maps_of_the_driver() -> None:
    """On sm_90a; the stand-in asks of a map what the driver asks, and an array that has none is said in words."""
    program = """
from tcc.codegen.gpu import hopper
from tcc.runtime.device_program import Address, TensorMap
hopper.LEAST_TILES, hopper.LEAST_ROWS, hopper.MULTIPROCESSORS = 1, 1, 2
x, v = T.matrix('x', dtype='float16'), f32(72, 264).astype(np.float16)
w = tcc.shared(v, target='cuda')
f = tcc.function([x], T.dot(x, w))
for turn in range(3):
    given = f32(136, 72).astype(np.float16)
    want = given.astype(np.float32) @ v.astype(np.float32)
    np.testing.assert_allclose(f(given), want, rtol=2e-3, atol=2e-2)
    if turn == 1:
        w.set_value(v := f32(72, 264).astype(np.float16))
print([k.split('_')[1] for k in f.variant.program.kernels], count(GRAPH_LAUNCHES))
device = tcc.devices.open_device('cuda')
good = TensorMap(Address(0), (64, 8, 1), (128, 1024), (64, 8), 2)
with device:
    place = device.alloc(4096)
    print(len(device.tensor_map(place, good, {})))
for at, wrong in ((8, good), (0, good._replace(strides=(136, 1024))), (0, good._replace(box=(128, 8))), (0, good._replace(sizes=(64, 0, 1)))):
    try: device.tensor_map(place + at, wrong, {})
    except DeviceError as e: print('cuda0: cuTensorMapEncodeTiled failed: invalid argument: a tensor map of [64, ' in str(e))
print(f(given).shape)
"""
    got = run(program, STANDIN_SM="90").splitlines()
    assert (
        "'warpgroups'" in got[0] and got[0].endswith("2") and got[1:] == ["16", *["True"] * 4, "(136, 264)"]
    )


def test_a_lost_device_leaves_the_cpu_working() -> None:
    program = """
w = tcc.shared(f32(4), target='cuda')
there = tcc.function([], w.sum())
there()
os.environ["STANDIN_FAULT"] = "cuLaunchKernel:719"
v = tcc.shared(f32(4), target='cuda')
for f in (tcc.function([], v.sum()), there):
    try:
        f()
    except DeviceLost as e:
        print("lost")
print(np.allclose(tcc.function([], v.sum(), device='cpu')(), v.get_value().sum()))
"""
    assert run(program) == "lost\nlost\nTrue"


def test_a_device_that_is_lost_in_a_graph_says_so() -> None:
    program = """
w = tcc.shared(f32(4), target='cuda')
f = tcc.function([], updates=[(w, w * 2)])
f(); f()
os.environ["STANDIN_FAULT"] = "cuGraphLaunch:719"
for _ in range(2):
    try: f()
    except DeviceLost as e: print("Start the process anew" in str(e))
"""
    assert run(program) == "True\nTrue"


def test_out_of_memory_changes_nothing() -> None:
    program = """
w = tcc.shared(np.ones(1000, np.float32), target='cuda')
x = T.vector('x', dtype='float32')
f = tcc.function([x], T.outer(x, x), updates=[(w, w + x.sum())])
try:
    f(f32(1 << 13))
except DeviceError as e:
    print(type(e).__name__, float(w.get_value().sum()))
print(f(f32(10)).shape)
"""
    assert run(program, STANDIN_MEMORY=str(64 << 20)) == "DeviceMemoryError 1000.0\n(10, 10)"


OP = """
import ctypes

class Scaled(tcc.CudaOp):
    __props__ = ("factor",)
    kernel, block = "scaled", 32
    source = '''
extern "C" __global__ void scaled(const float *x, float *y, long long n, long long m) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = 3 * x[i];
}
'''
    def __init__(self, factor): self.factor = factor
    def make_node(self, x):
        x = T.as_tensor_variable(x)
        return tcc.Apply(self, [x], [x.type()])
    def infer_shape(self, node, shapes): return shapes
    def perform(self, node, inputs, out): out[0][0] = self.factor * inputs[0]

seen = []
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
def launch(name, dims, params, bytes, shared):
    x, y, n, m = np.frombuffer(ctypes.string_at(params, bytes), np.int64).tolist()
    seen.append((name.decode(), dims[0], dims[3], n, m))
    for i in range(n):
        ctypes.c_float.from_address(y + 4 * i).value = 3 * ctypes.c_float.from_address(x + 4 * i).value
    return 0

x = T.vector('x', dtype='float32')
f = tcc.function([x], Scaled(3)(x), device='cuda')
"""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_cuda_c_of_the_users() -> None:
    program = """
library.standin_set_launch(launch)
given = f32(45)
np.testing.assert_array_equal(f(given), np.float32(3) * given)
print(seen, f(f32(0)).size, count(COPIES_OUT) - len(seen))
print("scaled(" in tcc.devices.open_device("cuda")._sources[Scaled.source])
Scaled.source, wrong = "nonsense", tcc.function([x], Scaled(4)(x), device='cuda')
try:
    wrong(given)
except DeviceError as e:
    print("Scaled{factor=4}: nvcc does not take the source" in str(e), "nonsense" in str(e))
"""
    assert run(OP + program) == "[('scaled', 2, 32, 45, 45)] 0 0\nTrue\nTrue True"


def test_cuda_c_is_part_of_the_graph() -> None:
    program = """
library.standin_set_launch(launch)
device = tcc.devices.open_device('cuda')
device.compile_c = lambda source: ".visible .entry scaled("  # as nvcc would
given, empty = f32(45), f32(0)
for value in (empty, empty, given, given, given):
    np.testing.assert_array_equal(f(value), np.float32(3) * value)
print(len(seen), count(GRAPH_LAUNCHES), "1 graph" in f.program.text("plan"))
"""
    assert run(OP + program) == "3 3 True"


def test_cuda_c_without_nvcc_says_so_and_the_emulator_takes_the_hosts_form() -> None:
    program = """
import shutil
shutil.which = lambda name: None
try:
    f(f32(4))
except DeviceError as e:
    print("CUDA C needs nvcc" in str(e))
print(tcc.function([x], Scaled(3)(x), device='emulator')(np.ones(3, np.float32)).tolist())
"""
    assert run(OP + program) == "True\n[3.0, 3.0, 3.0]"


def test_arrays_of_other_frameworks_go_in_as_they_lie() -> None:
    program = """
import copy, pickle
asked = []
class Foreign:
    def __init__(self, array): self.array = array
    def __dlpack__(self, stream=None, **more):
        asked.append(stream)
        return self.array.__dlpack__(**more)
    def __dlpack_device__(self): return self.array.__dlpack_device__()
class Shown:
    def __init__(self, array, **more): self.__cuda_array_interface__ = array.__cuda_array_interface__ | more

x = T.vector('x', dtype='float32')
double, d = tcc.function([x], (x * 2).transfer('cuda'), device='cuda'), tcc.devices.open_device('cuda')
there = double(f32(5))
want, copies = there.get() * 2, count(COPIES_IN)
for other in (Foreign(there), Shown(there), Shown(there, stream=1)):
    np.testing.assert_array_equal(double(other).get(), want)
w = tcc.shared(f32(3), target='cuda')
for other in (Foreign(there), Shown(there)):
    w.set_value(other)
    np.testing.assert_array_equal(w.get_value() * 2, want)
    w.set_value(other, borrow=True)
    assert w.get_value(borrow=True, return_internal_type=True).address == there.address
print(count(COPIES_IN) - copies, set(asked) == {d.stream})
host = Shown(there, data=(np.ones(5, np.float32).ctypes.data, False))
for wrong in (host, Shown(there, strides=(8,)), Shown(there, typestr='|V4')):
    try: double(wrong)
    except (TypeError, ValueError) as e: print(type(e).__name__, str(e).split(':')[0])
for same in (copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
    assert same.device is d and same.address != there.address and (same.get() == there.get()).all()
total = tcc.function([x], x.sum().transfer('cuda'), device='cuda')(np.ones(3, np.float32))
print(float(total), int(total), bool(total))
"""
    assert run(program).splitlines() == [
        "0 True",
        "TypeError Shown lies on another device than cuda0",
        "ValueError an array that cuda0 takes must be C-contiguous",
        "TypeError Shown holds |V4, or a mask, and arrays of numbers are taken",
        "3.0 3 True",
    ]


def test_a_child_process_is_told_that_cuda_is_its_parents() -> None:
    program = """
w = tcc.shared(f32(4), target='cuda')
f = tcc.function([], w.sum())
f()
sys_exit = os._exit
if os.fork() == 0:
    try: f()
    except DeviceLost as e: print("forked" in str(e), flush=True)
    print(float(tcc.function([], T.ones(3).sum(), device='cpu')()), flush=True)
    sys_exit(0)
os.wait()
print(np.allclose(f(), w.get_value().sum()))
"""
    assert run(program) == "True\n3.0\nTrue"
