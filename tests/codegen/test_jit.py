from __future__ import annotations

import ctypes
import functools
import gc
import mmap
import threading

import pytest
from llvmlite.binding import ffi

from tcc.codegen.compile import Making
from tcc.codegen.jit import Image, Jobs, assembly, compile_object, function
from tcc.codegen.products import engines
from tcc.codegen.target import host

CALLER = """
declare i64 @labs(i64)
declare i64 @triple(i64)
declare i64 @far(i64)
define i64 @main(i64 %x) #0 {
  %a = call i64 @labs(i64 %x)
  %b = call i64 @triple(i64 %a)
  %c = call i64 @far(i64 %b)
  ret i64 %c
}
"""
TRIPLE = "define i64 @triple(i64 %x) #0 {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
FAR = "define i64 @far(i64 %x) #0 {\n  %y = add i64 %x, 1\n  ret i64 %y\n}\n"


def objects(*texts: str) -> list[bytes]:
    return [compile_object(text, host()) for text in texts]


def labs() -> int:
    address = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
    assert address is not None
    return address


def test_objects_link_with_each_other_with_libc_and_with_another_image() -> None:
    other = Image.load(objects(FAR), {})
    image = Image.load(objects(CALLER, TRIPLE), {"labs": labs(), "far": other.address("far")})
    main = function(image.address("main"), ctypes.c_int64, ctypes.c_int64)
    assert main(-7) == 22


@pytest.mark.skipif("x86_64" not in host().triple, reason="the far function is x86-64 machine code")
def test_external_code_may_be_out_of_reach_of_a_relative_call() -> None:
    code = bytes.fromhex("488d4701c3")  # lea rax, [rdi + 1]; ret
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    page = libc.mmap(0x20_0000_0000, 4096, everything, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(page, code, len(code))
    image = Image.load(objects(CALLER, TRIPLE), {"labs": labs(), "far": page})
    assert abs(image.address("main") - page) > 1 << 32
    assert function(image.address("main"), ctypes.c_int64, ctypes.c_int64)(-7) == 22


def test_equal_names_in_two_images_do_not_meet() -> None:
    first, second = Image.load(objects(FAR)), Image.load(objects(FAR.replace("i64 %x, 1", "i64 %x, 2")))
    results = [function(i.address("far"), ctypes.c_int64, ctypes.c_int64)(0) for i in (first, second)]
    assert results == [1, 2]


def statm(column: int) -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[column]) * mmap.PAGESIZE


def test_nothing_is_left_of_many_images() -> None:
    """LLVM's linker keeps the names of images that are gone: 9 KB of each, 3.6 MB here."""
    (small,) = objects(TRIPLE)
    engines.wait()  # what others began to compile takes memory too
    for count in (100, 400):
        before = statm(1)
        for _ in range(count):
            Image.load([small]).address("triple")
        gc.collect()
    assert statm(1) - before < 1 << 20


def test_a_dead_image_gives_its_memory_back() -> None:
    # 4 MiB of code and data an image: a hundred of them would show
    text = (
        'define ptr @table() #0 {\n  ret ptr @data\n}\n@data = internal global [4194304 x i8] c"1'
        + "\\00" * 4194303
    )
    (big,) = objects(text + '"\n')

    Image.load([big]).address("table")
    gc.collect()
    before = statm(0)
    for _ in range(20):
        Image.load([big]).address("table")
    gc.collect()
    assert statm(0) - before < 32 << 20


def test_wrong_text_is_a_runtime_error_with_llvm_s_words() -> None:
    with pytest.raises(RuntimeError, match="expected"):
        compile_object("define i64 @f( {", host())
    with pytest.raises(RuntimeError, match="does not dominate"):
        compile_object("define i64 @f() {\n %a = add i64 %b, 1\n %b = add i64 1, 1\n ret i64 %a\n}", host())


def test_a_missing_symbol_is_a_runtime_error() -> None:
    image = Image.load(objects(TRIPLE))
    with pytest.raises(RuntimeError, match="nosuch"):
        image.address("nosuch")
    with pytest.raises(RuntimeError, match="main"):
        Image.load(objects(CALLER)).address("main")


def test_assembly_is_readable() -> None:
    assert "triple:" in assembly(TRIPLE, host())


def test_modules_are_compiled_side_by_side_to_the_objects_that_they_are_alone(monkeypatch) -> None:
    monkeypatch.setenv("TCC_THREADS", "3")
    texts = [FAR.replace("i64 %x, 1", f"i64 %x, {k}") for k in range(20)]
    threads = set()

    def compiled(text: str) -> bytes:
        threads.add(threading.get_ident())
        return compile_object(text, host())

    jobs = Jobs()
    for number, text in enumerate(texts):
        jobs.add(number, functools.partial(compiled, text))
        if number % 4 == 0:
            jobs.begin()
    assert jobs.results() == objects(*texts)
    assert len(threads) <= 3


def test_what_is_begun_is_made_before_anybody_asks_for_it(monkeypatch) -> None:
    monkeypatch.setenv("TCC_THREADS", "2")
    made, jobs = threading.Event(), Jobs()
    jobs.add(1, lambda: b"" if made.set() else b"made")
    jobs.begin()
    assert made.wait(60)
    jobs.add(2, lambda: b"more")
    assert jobs.results() == [b"made", b"more"]


def test_what_waits_is_not_made_where_writing_the_rest_fails(monkeypatch) -> None:
    monkeypatch.setenv("TCC_THREADS", "2")
    begun, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def job(number: int) -> bytes:
        begun.set()
        assert go_on.wait(60)
        made.append(number)
        return b""

    with pytest.raises(KeyboardInterrupt), Making(host()) as making:
        for k in range(3):
            making.jobs.add(1, functools.partial(job, k))
            making.jobs.begin()
        assert begun.wait(60)
        raise KeyboardInterrupt
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "tcc compiler":
            thread.join()
    assert made == [0]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_one_of_several_jobs_is_raised_and_ends_the_others(threads, monkeypatch) -> None:
    monkeypatch.setenv("TCC_THREADS", str(threads))
    begun: list[int] = []

    def job(number: int) -> bytes:
        begun.append(number)
        return compile_object(FAR if number != 1 else "define i64 @f( {", host())

    jobs = Jobs()
    for k in range(50):
        jobs.add(-k, functools.partial(job, k))
    with pytest.raises(RuntimeError, match="parsing error"):
        jobs.results()
    assert threads > 1 or begun == [0, 1]


def test_a_binding_whose_lock_cannot_be_left_out_makes_the_same_code(monkeypatch) -> None:
    wanted = objects(CALLER, FAR)
    emit = "LLVMPY_TargetMachineEmitToMemory"
    locked = getattr(ffi.lib, emit)
    monkeypatch.setitem(ffi.lib._fntab, emit, lambda *args: locked(*args))
    assert objects(CALLER, FAR) == wanted
