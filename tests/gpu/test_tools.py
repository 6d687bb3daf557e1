"""Commands that run on a device, and the limits that they measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from emulated import assembled

from tcc.codegen.gpu.chips import chip
from tcc.codegen.gpu.emulator import Emulator
from tcc.codegen.gpu.kernel import ptx
from tcc.codegen.gpu.peaks import peak_kernel
from tcc.runtime.device_program import DeviceKernel
from tcc.tools.cli import run

MODEL = """
import numpy as np, tcc, tcc.tensor as T
x = T.fmatrix("x")
w = tcc.shared(np.ones((7, 5), np.float32), "w")
f = tcc.function([x], T.tanh(T.dot(x, w)), updates=[(w, w * 2)])
"""
Output = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_on_gpu.py").write_text(MODEL)
    return tmp_path


def test_profile_tells_what_a_devices_kernels_cost(here: Path, capsys: Output) -> None:
    words = ["profile", "model_on_gpu.py:f", "--size", "x_0=3", "--seconds", "0.02", "--device", "emulator"]
    assert run(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["us", "%", "calls", "MB", "Gflop", "fma", "memory", "kernel"]
    (product,) = [line.split() for line in lines if "matmul f32[3,7]" in line]
    assert float(product[0]) > 0 and product[2:5] == ["1", "0.000284", "2.1e-07"]
    assert "launches, copies and the host" in lines[-2] and lines[-1].endswith("us a call on emulator")


def test_bench_calls_a_model_on_a_device(here: Path, capsys: Output) -> None:
    assert run(["compile", "model_on_gpu.py:f", "-o", "f.tcb"]) == 0
    capsys.readouterr()
    assert run(["bench", "f.tcb", "--device", "emulator", "--seconds", "0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "emulator"
    assert run(["bench", "f.tcb", "--device", "emulator", "--interpret"]) == 2
    assert run(["bench", "f.tcb", "--device", "disk"]) == 2
    assert "no device 'disk'" in capsys.readouterr().err


def test_the_same_on_a_driver(here: Path) -> None:
    program = """
from standin_kernels import *
from tcc import devicetimes
from tcc.tools.cli import run
devicetimes.PEAK_BLOCKS, devicetimes.PEAK_ROUNDS, devicetimes.COPIED = 1, 8, 1 << 16
assert run(["profile", "model_on_gpu.py:f", "--size", "x_0=3", "--seconds", "0.02", "--device", "cuda"]) == 0
assert run(["compile", "model_on_gpu.py:f", "-o", "f.tcb", "--verify", "0"]) == 0
assert run(["bench", "f.tcb", "--device", "cuda", "--seconds", "0.01"]) == 0
"""
    got = standin.run(program)
    assert "us a call on cuda0" in got and "calls, cuda0, x_0 = 32" in got
    failed = "from tcc.tools.cli import run\nprint(run(['bench', 'f.tcb', '--device', 'cuda']))"
    assert standin.run(failed, STANDIN_DEVICES="0") == "1"


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_the_kernel_that_only_multiplies_and_adds(dtype: str) -> None:
    kernel, operations = peak_kernel(dtype)
    text = ptx(kernel, chip("sm_90"))
    assert (text.count("mma.sync") if "16" in dtype else text.count("fma.rn")) >= 8
    device: Any = Emulator()
    memory = device.alloc(8 * kernel.block)
    loaded = DeviceKernel(kernel.name, kernel.text, kernel.block, 2)
    device.launch(loaded, (1, 1, 1), [memory, 2])
    found = np.empty(kernel.block, np.float64)
    device.to_host(found, memory)
    assert not np.isnan(found.view(np.float32 if dtype != "f64" else np.float64)[::2]).all()
    assert operations == (1024 if "16" in dtype else 16)
    assembled(text, "sm_90")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_that_of_a_warpgroups_products(dtype: str) -> None:
    kernel, operations = peak_kernel(dtype, specific=True)
    assert operations * 128 == 4 * 2 * 64 * 256 * 16
    text = ptx(kernel, chip("sm_90a"))
    assert text.count("wgmma.mma_async") >= 4
    said = assembled(text, "sm_90a")
    assert "error" not in said and "C75" not in said and " 0 bytes spill stores" in said, said
