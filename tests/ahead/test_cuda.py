"""Libraries whose entries run on a GPU: through the C interface, on a stand-in for the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standin
import standin_native
from emulated import assembled

import tcc
import tcc.tensor as T
from tcc.ahead import library
from tcc.codegen.target import chosen
from tcc.exporting import exported
from tcc.tools.cli import run

MODEL = """
import numpy as np, tcc, tcc.tensor as T
from tcc import gpu
rng = np.random.default_rng(0)
def f32(*shape): return rng.normal(size=shape).astype(np.float32)
x, y, v, i = T.fmatrix('x'), T.fmatrix('y'), T.fvector('v'), T.lvector('i')
w, b = tcc.shared(f32(7, 5), 'w'), tcc.shared(f32(5), 'b')
p = T.nnet.softmax(T.dot(x, w) + b)
cost = ((p - y) ** 2).mean()
steps = [(q, q - np.float32(.1) * g) for q, g in zip((w, b), tcc.grad(cost, [w, b]))]
h, _ = tcc.scan(lambda a, h: T.tanh(h * a + 1), sequences=v, outputs_info=np.float32(0))

@tcc.kernel("float32[n] -> float32[2*n]")
def doubled(x, y):
    i = gpu.index()
    if i < len(y):
        y[i] = x[i // 2]

predict = tcc.function([x], p)
step = tcc.function([x, y], cost, updates=steps)
late = tcc.function([v], [v[(v > 0).nonzero()], v.sum()], updates=[(b, b + v.sum())])
looped = tcc.function([v], h)
chosen = tcc.function([v], tcc.ifelse(v.sum() > 0, v * 2, v - 1))
checked = tcc.function([v, i], v[i] * 2)
user = tcc.function([v], doubled(v) + 1)
q = T.matrix('q', dtype='bfloat16')
halves = tcc.function([q], T.tanh(T.dot(q, q.T)))
"""
ENTRIES = ("predict", "step", "late", "looped", "chosen", "checked", "user", "halves")
USE = """
import os, sys
import numpy as np
from standin_kernels import *
from tcc.ir.arrays import as_numbers, in_memory
from tcc.tools.cli import run
entries = [word for n in ENTRIES for word in ("--entry", f"{n}={n}")]
words = ["compile", "onhost.py", "--name", "ongpu", *entries, "--target", "cuda", "--emit", "shared,python", "-o", "made"]
assert run(words) == 0
sys.path[:0] = ["made", "."]
import ongpu, onhost
m = ongpu.load()
f32, close = onhost.f32, np.testing.assert_allclose
X, Y, V = f32(11, 7), f32(11, 5), f32(33)
"""
Output = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onhost.py").write_text(MODEL)
    return tmp_path


def use(program: str, **environment: str) -> str:
    """What a program says last that has a library of the entries it names."""
    named = [name for name in ENTRIES if name in program]
    return standin.run(f"ENTRIES = {named}\n{USE}{program}", pycuda=False, **environment).splitlines()[-1]


def test_all_kinds_of_steps_give_the_hosts_results(here: Path) -> None:
    program = """
for _ in range(3):
    close(m.step(X, Y), onhost.step(X, Y), rtol=1e-5)
close(m.predict(X), onhost.predict(X), rtol=1e-5)
for given in (V, V[:0], V[:1], -np.abs(V)):
    for a, b in zip(m.late(given), onhost.late(given)):
        close(a, b, rtol=1e-5, atol=1e-6)
    for name in ("looped", "chosen", "user"):
        close(getattr(m, name)(given), getattr(onhost, name)(given), rtol=1e-5)
bits = in_memory(X, "bf16")
close(as_numbers(m.halves(bits), "bf16"), onhost.halves(X), rtol=2**-6, atol=2**-8)
close(m.checked(V, np.array([3, 1, 32])), V[[3, 1, 32]] * 2)
try:
    m.checked(V, np.array([3, 33]))
except Exception as e:
    said = str(e)
for name in ("w", "b"):
    close(m.state[name], getattr(onhost, name).get_value(), rtol=1e-5, atol=1e-6)
m.save("state.safetensors")
used = count(USED)
m.step(X, Y)
m.restore("state.safetensors")
close(m.state["w"], onhost.w.get_value(), rtol=1e-5, atol=1e-6)
m.state["b"][:] = 0
close(m.predict(X), onhost.T.nnet.softmax(X @ onhost.w.get_value()).eval(), rtol=1e-5)
del m, name
import gc; gc.collect()
print(said, used > 0, count(USED))
"""
    want = "ongpu_checked: index 33 is out of bounds for an axis of size 33 (index number 1), written at onhost.py:24"
    assert use(program) == f"{want} True 0"


def test_the_state_stays_on_the_device(here: Path) -> None:
    program = """
m.step(X, Y)
before = count(COPIES_IN), count(COPIES_OUT)
for _ in range(5): m.step(X, Y)
print((count(COPIES_IN) - before[0]) / 5, (count(COPIES_OUT) - before[1]) / 5)
"""
    assert use(program) == "2.0 1.0"


def test_calls_that_are_alike_launch_a_graph(here: Path) -> None:
    """From the second on, and those of a few sizes are kept; what the host looks at, and what comes behind it, is in none."""
    program = """
def calls(name, *given, times=1):
    before = count(LAUNCHES), count(GRAPH_LAUNCHES)
    for _ in range(times):
        for a, b in zip(*(np.atleast_1d(f(*given)) for f in (getattr(m, name), getattr(onhost, name)))):
            close(a, b, rtol=1e-4, atol=1e-6)
    return count(LAUNCHES) - before[0] > 0, count(GRAPH_LAUNCHES) - before[1]
a = calls("step", X, Y), calls("step", X, Y), calls("step", X, Y, times=4)
b = calls("step", X[:3], Y[:3]), calls("step", X[:3], Y[:3], times=2), calls("step", X[:0], Y[:0]), calls("step", X, Y)
b += calls("step", X[:3], Y[:3]), *(calls("step", X[:n], Y[:n]) for n in (1, 2)), calls("step", X, Y)
c = calls("looped", V, times=3), calls("chosen", V, times=3)
m.state["b"][:] = onhost.b.get_value()
close(m.state["w"], onhost.w.get_value(), rtol=1e-4, atol=1e-6)
del m
import gc; gc.collect()
print(a, b, c, count(USED))
"""
    assert use(program) == (
        "((True, 0), (True, 1), (True, 4)) ((True, 0), (True, 2), (True, 0), (True, 1), (True, 1), (True, 0), (True, 0), (True, 0)) "
        "((True, 2), (True, 2)) 0"
    )


def test_a_driver_without_graphs_is_given_kernels_one_by_one(here: Path) -> None:
    """As those before CUDA 11.4 are."""
    program = """
for _ in range(4):
    close(m.step(X, Y), onhost.step(X, Y), rtol=1e-5)
print(count(GRAPH_LAUNCHES))
"""
    whole, part = standin.folder() / "libcuda.so.1", here / "old"
    part.mkdir()
    hidden = whole.read_bytes().replace(
        b"\0cuGraphInstantiateWithFlags\0", b"\0cuGraphInstantiateWithOther\0"
    )
    (part / "libcuda.so.1").write_bytes(hidden)
    assert use(program, LD_LIBRARY_PATH=str(part)) == "0"


def test_large_products_of_halves_on_sm_90a(here: Path) -> None:
    """By tensor maps, which the library has the driver make; where operands lie otherwise, by the other kernel."""
    (here / "large.py").write_text(
        "import tcc, tcc.tensor as T\na, b = T.matrix('a', dtype='bfloat16'), T.matrix('b', dtype='bfloat16')\n"
        "f = tcc.function([a, b], T.tanh(T.dot(a, b.T).astype('float32')))\n"
    )
    program = """
import sys
import numpy as np
from standin_kernels import *
from tcc.codegen.gpu import hopper
from tcc.ir.arrays import as_numbers, in_memory
from tcc.tools.cli import run
hopper.LEAST_TILES = hopper.LEAST_ROWS = 1
words = ["compile", "large.py:f", "--name", "large_lib", "--target", "cuda", "--gpu-arch", "sm_90a"]
assert run([*words, "--emit", "shared,python,ptx", "-o", "made", "--verify", "0"]) == 0
sys.path[:0] = ["made"]
import large_lib
m, rng, ran = large_lib.load(), np.random.default_rng(0), []
for rows, k in ((136, 72), (136, 72), (136, 72), (136, 76), (136, 0), (0, 72)):
    a, b = (in_memory(rng.standard_normal((n, k)).astype("f4") / 9, "bf16") for n in (rows, 264))
    emulator.launched.clear()
    got = m.f(a, b)
    want = np.tanh(as_numbers(a, "bf16") @ as_numbers(b, "bf16").T)
    np.testing.assert_allclose(got, want, rtol=2**-6, atol=2**-8)
    ran += {name.split("_")[1] for name in emulator.launched} & {"warpgroups", "matrices"} or {"none"}
print(ran)
"""
    said = standin.run(program, pycuda=False, STANDIN_SM="90").splitlines()[-1]
    assert said == str(["warpgroups"] * 3 + ["matrices"] * 2 + ["none"])


@pytest.mark.parametrize("name", ["cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuGraphLaunch"])
def test_a_graph_that_fails_is_a_message(here: Path, name: str) -> None:
    """And the next call goes on."""
    program = f"""
m.step(X, Y)
try:
    for _ in range(3): m.step(X, Y)
except Exception as e:
    said = str(e)
print("the GPU failed in {name}" in said)
"""
    assert use(program, STANDIN_FAULT=f"{name}:700") == "True"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STANDIN_DEVICES": "0"}, "the NVIDIA driver finds no GPU"),
        ({"STANDIN_DRIVER": "10020"}, "the NVIDIA driver is for CUDA 10.2, and 11.0 is the least: update it"),
        ({"STANDIN_SM": "75"}, "GPU 0 has compute capability 7.5, and the code is for 8.0 and newer"),
        ({"STANDIN_FAULT": "cuInit:999"}, "the GPU failed in cuInit: an error"),
        ({"STANDIN_FAULT": "cuModuleLoadDataEx:218"}, "the NVIDIA driver does not take the kernel tcc_"),
        ({"STANDIN_MEMORY": "100"}, "the GPU has no memory for 60 bytes"),
        (
            {"STANDIN_FAULT": "cuLaunchKernel:719"},
            "the GPU failed in cuLaunchKernel: unspecified launch failure",
        ),
        ({"STANDIN_FAULT": "cuStreamSynchronize:700"}, "the GPU failed in cuStreamSynchronize: an error"),
    ],
)
def test_what_a_driver_cannot_do_is_a_message(built: Path, environment: dict[str, str], message: str) -> None:
    assert message in called(built, "host", **environment)


def test_without_a_driver(built: Path) -> None:
    said = called(built, "host", LD_LIBRARY_PATH="", LD_PRELOAD="")
    assert "there is no NVIDIA driver (libcuda.so.1 is not found)" in said


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "onc.h"
extern int cuMemAlloc_v2(unsigned long long *, size_t) __attribute__((weak));
extern int cuDevicePrimaryCtxRetain(void **, int) __attribute__((weak)), cuCtxPushCurrent_v2(void *) __attribute__((weak));
static int fail(const char *what, int status) { printf("%s %d: %s\n", what, status, onc_last_error()); return 0; }
int main(int argc, char **argv) {
    onc_context *c = onc_create(NULL);
    if (!c) return fail("create", 0);
    int far = !strcmp(argv[1], "device"), other = !strcmp(argv[1], "other");
    float x[4 * 3], y[4 * 5];
    for (int i = 0; i < 12; i++) x[i] = i - 5;
    int64_t xs[] = {4, 3}, ys[] = {4, 5};
    DLTensor in = {x, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, xs, NULL, 0}, out = {y, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, ys, NULL, 0};
    unsigned long long p = 0, q = 0;
    if (far || other) {  /* the stand-in's memory is the host's */
        void *context;
        cuDevicePrimaryCtxRetain(&context, 0);
        cuCtxPushCurrent_v2(context);
        cuMemAlloc_v2(&p, sizeof x + 16);
        cuMemAlloc_v2(&q, sizeof y);
        memcpy((char *)p + 16, x, sizeof x);
        in.data = (void *)p, out.data = (void *)q, in.byte_offset = 16;
        in.device.device_type = out.device.device_type = kDLCUDA;
        in.device.device_id = other;
    }
    const DLTensor *ins[] = {&in};
    DLTensor *outs[] = {&out};
    int status = onc_run_run(c, ins, outs, NULL);
    if (status) return fail("run", status);
    if (far) memcpy(y, (void *)q, sizeof y);
    for (int i = 0; i < 20; i++) printf("%.9g ", y[i]);
    onc_destroy(c);
    printf("\n");
    return 0;
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library, the program on it, and the kernels for the stand-in."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("onc")
    (folder / "onc.py").write_text(
        "import numpy as np, tcc, tcc.tensor as T\nx = T.fmatrix('x')\n"
        "w = tcc.shared(np.arange(15, dtype='f').reshape(3, 5), 'w')\nrun = tcc.function([x], T.tanh(T.dot(x, w) / 99))\n"
    )
    words = [
        "--target",
        "cuda",
        "--emit",
        "shared,header,ptx",
        "--name",
        "onc",
        "--verify",
        "0",
        "-o",
        str(folder),
    ]
    assert run(["compile", f"{folder}/onc.py:run", *words]) == 0
    (folder / "main.c").write_text(PROGRAM)
    flags = ["-Wl,-rpath,$ORIGIN", f"-L{folder}", "-lonc"]
    subprocess.run(["cc", "-o", "main", "main.c", *flags], check=True, cwd=folder)
    model = exported({"run": function()}, "onc")
    device = library(model, chosen(), gpu="sm_80").device
    assert device is not None
    from tcc.codegen.gpu.driver import lower
    from tcc.passes.manager import Context
    from tcc.passes.manager import run as run_passes
    from tcc.passes.pipeline import gpu_pipeline

    func = exported({"run": function()}, "onc").module["run"]
    run_passes(func, gpu_pipeline(), Context())
    emulated = lower(func, None).kernels
    assert set(emulated) == set(device.kernels)
    standin_native.build(emulated.values(), folder / "libkernels.so")
    return folder


def function() -> object:
    x = T.fmatrix("x")
    w = tcc.shared(np.arange(15, dtype="f").reshape(3, 5), "w")
    return tcc.function([x], T.tanh(T.dot(x, w) / 99))


def called(folder: Path, how: str, **environment: str) -> str:
    own = {"LD_LIBRARY_PATH": str(standin.folder()), "LD_PRELOAD": str(folder / "libkernels.so")}
    done = subprocess.run(
        [str(folder / "main"), how], env={**os.environ, **own, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("how", ["host", "device"])
def test_a_c_program_gives_tensors_of_the_host_or_of_the_device(built: Path, how: str) -> None:
    got = np.array(called(built, how).split(), float).reshape(4, 5)
    x = np.arange(12, dtype="f").reshape(4, 3) - 5
    np.testing.assert_allclose(got, np.tanh(x @ np.arange(15, dtype="f").reshape(3, 5) / 99), rtol=1e-5)


def test_a_tensor_of_another_gpu_is_refused(built: Path) -> None:
    assert called(built, "other") == "run 3: onc_run: x lies on GPU 1, and the context is on GPU 0"


def test_wrong_calls_are_refused(built: Path) -> None:
    """Among them tensors of the host that are said to be the device's."""
    command = [sys.executable, "-m", "tcc.tools.callfuzz", str(built / "libonc.so"), "onc", "--calls", "1000"]
    own = {"LD_LIBRARY_PATH": str(standin.folder()), "LD_PRELOAD": str(built / "libkernels.so")}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "status 3:" in done.stdout


def test_the_library_needs_libc_alone(built: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    text = subprocess.run(["readelf", "-d", built / "libonc.so"], capture_output=True, text=True).stdout
    needed = [line.split("[")[1].split("]")[0] for line in text.splitlines() if "NEEDED" in line]
    assert set(needed) <= {"libc.so.6", "libm.so.6", "libdl.so.2"}


def test_its_ptx_assembles(built: Path) -> None:
    assert "error" not in assembled((built / "onc.ptx").read_text(), "sm_80")


def test_equal_input_gives_equal_bytes(built: Path, here: Path) -> None:
    words = [
        "--target",
        "cuda",
        "--emit",
        "shared,header,ptx",
        "--name",
        "onc",
        "--verify",
        "0",
        "-o",
        "again",
    ]
    shutil.copy(built / "onc.py", here)
    assert run(["compile", "onc.py:run", *words]) == 0
    for name in ("libonc.so", "onc.ptx", "onc.json"):
        assert (here / "again" / name).read_bytes() == (built / name).read_bytes()


def test_what_has_no_code_there_is_named(here: Path, capsys: Output) -> None:
    (here / "odd.py").write_text(
        "import tcc, tcc.tensor as T\nx = T.dmatrix('x')\nf = tcc.function([x], T.nlinalg.matrix_inverse(x) + T.exp(x))\n"
    )
    assert run(["compile", "odd.py:f", "--target", "cuda", "-o", "odd/"]) == 1
    said = capsys.readouterr().err
    assert (
        "there is no native code without Python for" in said
        and "matrix_inverse(f64" in said
        and "odd.py:3" in said
    )
    words = ["compile", "onhost.py:user", "--target", "cuda", "-o", "user/", "--verify", "0"]
    assert run(words) == 1
    assert "the GPU kernel (which a library may hold) doubled" in capsys.readouterr().err
    assert run([*words, "--emit", "obj,ptx"]) == 0
    for wrong in (["--gpu-arch", "sm_80"], ["--emit", "ptx"], ["--target", "cuda", "--gpu-arch", "sm_1"]):
        assert run(["compile", "onhost.py:predict", *wrong]) == 2
    wasm = ["--target", "cuda", "--mtriple", "wasm32-unknown-unknown"]
    assert run(["compile", "onhost.py:predict", *wasm, "--emit", "obj", "-o", "w/"]) == 1
    assert "has no way to a GPU" in capsys.readouterr().err
