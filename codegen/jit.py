"""LLVM text to object bytes, and object bytes to callable addresses.

Objects are position independent code of the small model; JITLink gives every call out of an image a stub and every
outside datum a GOT slot, so an external symbol may lie anywhere in the address space.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tcc.codegen.target import Target, host
from tcc.runtime.threads import thread_count

IMAGES = 32  # of one linker, which keeps 9 KB of each for as long as it lives, also of those that are gone

_image_numbers = itertools.count()
_machines: dict[tuple[Target, int], list[Any]] = {}  # those that no thread uses


def compile_object(text: str, target: Target, level: int = 2) -> bytes:
    """The relocatable object of a module; RuntimeError with LLVM's words if the text is wrong.

    The target's triple and its attribute group #0 are added to the text.  No IR pass runs: kernels are explicit vectors.
    `level` is the code generator's: 0 is quick, for what runs a few times a call (one function can have it too: `optnone`).
    """
    with parsed(text, target) as module, machine_of(target, level) as machine:
        return _emitted(machine, module)


def assembly(text: str, target: Target) -> str:
    """The assembly that `compile_object` would encode."""
    with parsed(text, target) as module, machine_of(target) as machine:
        return str(machine.emit_assembly(module))


def function(address: int, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    """The C function at `address` as a ctypes callable, which releases the GIL; it does not keep its Image alive."""
    return ctypes.CFUNCTYPE(restype, *argtypes)(address)


class Image:
    """Object files linked together in memory, which is given back when the Image dies."""

    def __init__(self, jit: Any, name: str, tracker: Any) -> None:
        self._jit, self._name, self._tracker = jit, name, tracker
        self._found: dict[str, Any] = {}

    @classmethod
    def load(cls, objects: Sequence[bytes], symbols: Mapping[str, int] | None = None) -> Image:
        """Links `objects` with each other and with the addresses in `symbols`, and with nothing else."""
        from llvmlite import binding as llvm

        builder = llvm.JITLibraryBuilder()
        for data in objects:
            builder.add_object_img(data)
        for symbol, address in (symbols or {}).items():
            builder.import_symbol(symbol, address)
        number = next(_image_numbers)
        jit, name = _linker(number // IMAGES), f"image{number}"
        return cls(jit, name, builder.link(jit, name))

    def address(self, name: str) -> int:
        """Of the function or datum `name`; RuntimeError if no object defines it or a symbol it needs is not there."""
        if name not in self._found:
            try:
                self._found[name] = self._jit.lookup(self._name, name)
            except RuntimeError as e:
                e.add_note(
                    f"looking up {name!r}; symbols that nothing defines are passed to Image.load by address"
                )
                raise
        return int(self._found[name][name])


def parsed(text: str, target: Target) -> Any:
    from llvmlite import binding as llvm

    if not target.fma:
        text = text.replace("@llvm.fma.", "@llvm.fmuladd.")
    whole = f'target triple = "{target.triple}"\n{text}\n{target.attributes}'
    module = llvm.parse_assembly(whole, llvm.create_context())
    module.verify()
    return module


def side_by_side(jobs: Sequence[Callable[[], bytes]]) -> list[bytes]:
    """What the jobs make, by as many threads as calls may use; the jobs are begun in their order.

    An error ends all: those that run are waited for.
    """
    if len(jobs) == 1:  # how many threads there may be takes longer to find than to leave out
        return [jobs[0]()]
    waiting = deque(enumerate(jobs))
    made: dict[int, bytes] = {}
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with contextlib.suppress(IndexError):
                while True:
                    number, job = waiting.popleft()
                    made[number] = job()
        except BaseException as e:
            failed.append(e)
            waiting.clear()

    helpers = [threading.Thread(target=work, name="tcc compiler") for _ in jobs[1 : thread_count()]]
    for helper in helpers:
        helper.start()
    try:
        work()
        for helper in helpers:
            helper.join()
    finally:
        waiting.clear()
    if failed:
        raise failed[0]
    return [made[number] for number in range(len(jobs))]


def _emitted(machine: Any, module: Any) -> bytes:
    """The object of a module, made without llvmlite's lock around all of LLVM: threads share no context and no machine."""
    from llvmlite.binding import ffi

    emit = ffi.lib.LLVMPY_TargetMachineEmitToMemory
    with ffi.OutputString() as error:
        buffer = getattr(emit, "_cfn", emit)(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


@contextlib.contextmanager
def machine_of(target: Target, level: int = 2) -> Iterator[Any]:
    """One that no other thread uses meanwhile."""
    free = _machines.setdefault((target, level), [])
    try:
        machine = free.pop()
    except IndexError:
        machine = _new_machine(target, level)
    yield machine
    free.append(machine)


def _new_machine(target: Target, level: int = 2) -> Any:
    from llvmlite import binding as llvm

    if target.triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    described = llvm.Target.from_triple(target.triple)
    return described.create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
    )


@functools.lru_cache(1)
def _linker(_: int) -> Any:
    """One for each number; it dies with the last of its images."""
    from llvmlite import binding as llvm

    # the linker takes the machine over, so it gets one of its own
    machine = _new_machine(host())
    return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)
