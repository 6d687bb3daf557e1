"""What the emulator reports, and device ops one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from emulated import assembled

from tcc.codegen.gpu.chips import CHIPS, chip
from tcc.codegen.gpu.emulator import Emulator, KernelError
from tcc.codegen.gpu.kernel import GpuKernel, ptx
from tcc.codegen.gpu.ops import OPS, DeviceOp
from tcc.runtime.device_program import DeviceKernel

HEAD = """declare i32 @tcc.thread()
declare ptr @tcc.shared()
declare void @tcc.barrier()
declare void @tcc.warp_barrier()
"""


def text(name: str, lines: str) -> str:
    body = "\n".join(
        "  " + line.strip() for line in lines.strip().splitlines() if not line.strip().endswith(":")
    )
    assert ":" not in lines, "one block only"
    return f"{HEAD}define void @{name}(ptr %args) #0 {{\nentry:\n{body}\n  ret void\n}}\n"


def run(kernel: DeviceKernel, array: np.ndarray[Any, Any], descending: bool = False) -> np.ndarray[Any, Any]:
    """The array after the kernel, whose only argument is its address."""
    device = Emulator(descending=descending)
    address = device.alloc(array.nbytes)
    device.to_device(address, array)
    device.launch(kernel, (1, 1, 1), [address])
    out = np.empty_like(array)
    device.to_host(out, address)
    return out


def rotate(barrier: str) -> DeviceKernel:
    """Each thread takes its right neighbour's number, through shared memory."""
    lines = f"""
        %t = call i32 @tcc.thread()
        %s = call ptr @tcc.shared()
        %x = load ptr, ptr %args
        %p = getelementptr i32, ptr %x, i32 %t
        %v = load i32, ptr %p, align 4
        %q = getelementptr i32, ptr %s, i32 %t
        store i32 %v, ptr %q, align 4
        {barrier}
        %n = add i32 %t, 1
        %m = and i32 %n, 63
        %r = getelementptr i32, ptr %s, i32 %m
        %w = load i32, ptr %r, align 4
        store i32 %w, ptr %p, align 4"""
    name = "rotate" if barrier else "racing"
    return DeviceKernel(name, text(name, lines), 64, 1, 256)


def test_a_missing_barrier_shows_in_one_of_both_orders() -> None:
    numbers = np.arange(64, dtype=np.int32)
    want = np.roll(numbers, -1)
    good, bad = rotate("call void @tcc.barrier()"), rotate("")
    assert all(np.array_equal(run(good, numbers, d), want) for d in (False, True))
    assert not all(np.array_equal(run(bad, numbers, d), want) for d in (False, True))


def test_memory_that_is_nobodys_is_not_touched() -> None:
    kernel = rotate("call void @tcc.barrier()")
    with pytest.raises(KernelError, match="address .* is outside of"):
        run(kernel, np.arange(63, dtype=np.int32))


@pytest.mark.parametrize("start, right", [(2, True), (1, False)])
def test_an_access_must_be_as_aligned_as_it_says(start: int, right: bool) -> None:
    """A GPU takes no other."""
    lines = f"""
        %x = load ptr, ptr %args
        %p = getelementptr i32, ptr %x, i32 {start}
        store <2 x i32> zeroinitializer, ptr %p, align 8"""
    kernel = DeviceKernel(f"pair{start}", text(f"pair{start}", lines), 32, 1)
    if right:
        assert run(kernel, np.ones(4, np.int32)).tolist() == [1, 1, 0, 0]
        return
    with pytest.raises(KernelError, match="is not aligned"):
        run(kernel, np.ones(4, np.int32))


def test_a_divergent_barrier_is_reported() -> None:
    body = f"""{HEAD}define void @split(ptr %args) #0 {{
entry:
  %t = call i32 @tcc.thread()
  %low = icmp slt i32 %t, 40
  br i1 %low, label %some, label %rest
some:
  call void @tcc.barrier()
  br label %done
rest:
  call void @tcc.warp_barrier()
  br label %done
done:
  ret void
}}
"""
    with pytest.raises(KernelError, match="wait for different things"):
        run(DeviceKernel("split", body, 64, 1), np.zeros(1, np.int32))


def test_a_thread_that_has_ended_is_not_waited_for() -> None:
    body = f"""{HEAD}define void @leaving(ptr %args) #0 {{
entry:
  %t = call i32 @tcc.thread()
  %low = icmp slt i32 %t, 40
  br i1 %low, label %some, label %done
some:
  call void @tcc.barrier()
  %p = load ptr, ptr %args
  store i32 7, ptr %p
  br label %done
done:
  ret void
}}
"""
    assert run(DeviceKernel("leaving", body, 64, 1), np.zeros(1, np.int32)) == [7]


# -- the table of device ops -----------------------------------------------------------------------------------------


def calling(op: DeviceOp) -> GpuKernel:
    """A kernel that does nothing but call an op, with numbers that it loads."""
    loads, given = [], []
    for i, t in enumerate(op.params):
        loads.append(f"  %a{i} = load {t}, ptr %args")
        given.append(f"{t} %a{i}")
    call = f"call {op.result} @tcc.{op.name}({', '.join(given)})"
    kept = (
        f"  {call}"
        if op.result == "void"
        else f"  %v = {call}\n  %p = load ptr, ptr %args\n  store {op.result} %v, ptr %p"
    )
    head = f"declare {op.result} @tcc.{op.name}({', '.join(op.params)})\n"
    body = "\n".join([head + "define void @calling(ptr %args) #0 {\nentry:", *loads, kept, "  ret void\n}\n"])
    return GpuKernel("calling", body, (), (1, 1, 1), 32, 0)


def compile_all(name: str) -> None:
    """All ops that a chip has; what is printed last is what LLVM ended the process on."""
    for op in OPS.values():
        if op.sm <= chip(name).sm and (chip(name).specific or not op.specific):
            print(op.name, flush=True)
            ptx(calling(op), chip(name))
    print("done")


@pytest.mark.parametrize("name", ["sm_70", "sm_80", pytest.param("sm_90a", marks=pytest.mark.slow)])
def test_every_op_is_compiled(name: str) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; import tcc.codegen.gpu.hopper_ops, test_emulator; test_emulator.compile_all({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=str(__file__).rsplit("/", 1)[0]
    )
    assert done.stdout.split()[-1:] == ["done"], done.stdout[-80:] + done.stderr[-2000:]


def test_an_op_that_the_chip_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs sm_80, and sm_70 is older"):
        ptx(calling(OPS["mma.bf16"]), chip("sm_70"))


def test_a_name_that_llvm_does_not_know_is_refused() -> None:
    wrong = DeviceOp("thread", "i32", (), "%r = call i32 @llvm.nvvm.read.ptx.sreg.tid.q()", "")
    kept, OPS["thread"] = OPS["thread"], wrong
    try:
        with pytest.raises(RuntimeError, match="unknown intrinsic"):
            ptx(calling(wrong), chip("sm_80"))
    finally:
        OPS["thread"] = kept


def test_there_are_chips_by_name_only() -> None:
    with pytest.raises(ValueError, match="sm_90a"):
        chip("sm_91")


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_ops_are_assembled(name: str) -> None:
    from tcc.codegen.gpu.ops import used

    for op in ("mma.bf16", "shuffle_xor"):
        kernel = calling(OPS[op])
        assert [o.name for o in used(kernel.text)] == [op]
        said = assembled(ptx(kernel, chip(name)), name)
        assert "error" not in said and "C75" not in said and " 0 bytes spill stores" in said, said


def test_chips_have_one_feature_each() -> None:
    assert all(features.startswith("+ptx") for features in CHIPS.values())
