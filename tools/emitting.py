"""What `tcc compile` makes of a model: for each kind of file its bytes, all of them before the first is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tcc.ahead import library
from tcc.codegen.aot import library as aot
from tcc.codegen.aot.features import required
from tcc.codegen.aot.freestanding import is_freestanding
from tcc.codegen.gpu.kernel import one_file
from tcc.codegen.target import Target
from tcc.exporting import Model
from tcc.ir import safetensors
from tcc.ir.text import print_module
from tcc.runtime import bundle
from tcc.runtime.bundle import Member
from tcc.runtime.manifest import File, Manifest
from tcc.runtime.manifest import Target as Machine
from tcc.tools import building, cfiles, jsfiles

KINDS = ("bundle", "shared", "static", "obj", "exe", "header", "python", "llvm-ir", "asm", "ptx", "tcir")
TEXT = ("header", "python", "llvm-ir", "asm", "tcir", "ptx")
SUFFIXES = {
    "bundle": ".tcb", "shared": ".so", "static": ".a", "obj": ".o", "header": ".h", "python": ".py", "llvm-ir": ".ll",
    "asm": ".s", "tcir": ".tcir", "ptx": ".ptx", "exe": "",
}  # fmt: skip
LINKED = ("shared", "static")  # what a program is linked with


@dataclass(frozen=True)
class Made:
    """A file to be written.  `role` is the manifest's; none for what only helps to build."""

    name: str
    data: bytes
    role: str = ""
    program: bool = False


@dataclass
class Emitter:
    """The files of a model for a target."""

    model: Model
    target: Target
    threads: int = 1
    embed: bool = True
    checks: bool = True
    gpu: str = ""  # an architecture, on which its entries run

    @cached_property
    def library(self) -> aot.Library:
        return library(self.model, self.target, self.threads, self.embed, self.checks, self.gpu)

    @cached_property
    def code(self) -> bytes:
        return aot.library_object(self.library)

    @cached_property
    def shared(self) -> bytes:
        return building.shared_library(self.code, self.target)

    @property
    def name(self) -> str:
        return self.model.name

    @cached_property
    def manifest(self) -> Manifest:
        """Without files."""
        machine = Machine(self.target.triple, self.target.cpu, required(self.target), self.threads, self.gpu)
        return replace(self.model.manifest(), target=machine)

    def files(self, kinds: Sequence[str]) -> list[Made]:
        """All files of these kinds, the manifest last; NoLinker if one of them needs what is not there."""
        makers: Mapping[str, Callable[[Sequence[str]], list[Made]]] = {
            "bundle": lambda _: [Made(f"{self.name}.tcb", self.bundled())],
            "shared": lambda _: [
                Made(self.linked(kinds), self.shared, "shared", True),
                *self.for_javascript(),
            ],
            "static": lambda _: [Made(f"lib{self.name}.a", self.static(), "static")],
            "obj": lambda _: [Made(f"{self.name}.o", self.code, "object")],
            "exe": lambda _: [Made(self.name, self.program(), program=True)],
            "header": self.for_c,
            "python": lambda kinds: [Made(f"{self.name}.py", self.text("python", kinds).encode(), "python")],
            "llvm-ir": lambda kinds: [
                Made(f"{self.name}.ll", self.text("llvm-ir", kinds).encode(), "llvm-ir")
            ],
            "asm": lambda kinds: [Made(f"{self.name}.s", self.text("asm", kinds).encode(), "asm")],
            "ptx": lambda kinds: [Made(f"{self.name}.ptx", self.text("ptx", kinds).encode(), "ptx")],
            "tcir": lambda kinds: [Made(f"{self.name}.tcir", self.text("tcir", kinds).encode(), "tcir")],
        }
        made = [file for kind in kinds for file in makers[kind](kinds)]
        native = any(kind in ("shared", "static", "obj", "exe") for kind in kinds)
        if native and not self.embed and self.model.state:
            made.append(Made(f"{self.name}.safetensors", self.weights(), "weights"))
        if set(kinds) - {"bundle", "exe"}:
            made.append(Made(f"{self.name}.json", self.described(made).to_json().encode()))
        return made

    def described(self, made: Sequence[Made]) -> Manifest:
        files = tuple(
            File(f.name, f.role, len(f.data), hashlib.sha256(f.data).hexdigest()) for f in made if f.role
        )
        return replace(self.manifest, files=files)

    def text(self, kind: str, kinds: Sequence[str] = ()) -> str:
        """A file of one of TEXT."""
        if kind == "header":
            return cfiles.header(self.manifest)
        if kind == "python":
            return cfiles.python_loader(self.manifest, self.library_name)
        if kind == "tcir":
            return print_module(self.model.module)
        if kind == "ptx":
            assert self.library.device is not None
            return one_file(self.library.device.kernels.values())
        if kind == "asm":
            return aot.library_assembly(self.library)
        return f'target triple = "{self.target.triple}"\n' + aot.library_text(self.library)

    def linked(self, kinds: Sequence[str]) -> str:
        """The file that C programs are linked with."""
        return self.library_name if "shared" in kinds or "static" not in kinds else f"lib{self.name}.a"

    @property
    def library_name(self) -> str:
        return f"{self.name}.wasm" if is_freestanding(self.target) else f"lib{self.name}.so"

    def for_javascript(self) -> list[Made]:
        if not is_freestanding(self.target):
            return []
        return [Made(f"{self.name}.mjs", jsfiles.LOADER.encode(), "javascript")]

    def for_c(self, kinds: Sequence[str]) -> list[Made]:
        files = {
            f"{self.name}_example.c": cfiles.example(self.manifest),
            f"{self.name}.pc": cfiles.pkgconfig(self.manifest),
            f"{self.name}-config.cmake": cfiles.cmake_config(self.manifest, self.linked(kinds)),
            "CMakeLists.txt": cfiles.cmake_lists(self.manifest),
        }
        head = Made(f"{self.name}.h", self.text("header").encode(), "header")
        if not set(kinds) & set(LINKED) or is_freestanding(self.target):
            return [head]
        return [head, *(Made(name, text.encode()) for name, text in files.items())]

    def static(self) -> bytes:
        return building.archive(self.name, self.code, aot.exports(self.library))

    def program(self) -> bytes:
        sources = {
            f"{self.name}_example.c": cfiles.example(self.manifest),
            f"{self.name}.h": self.text("header"),
        }
        return building.executable(self.code, sources, self.target)

    def weights(self) -> bytes:
        """The state's file, as `create` takes it."""
        return b"".join(safetensors.encode(self.model.state))

    def bundled(self) -> bytes:
        """The bundle, with a library where there is a linker; its state is in the bundle's own file of weights."""
        members = self.model.members()
        bare = replace(self, embed=False)
        try:
            members.append(Member(self.library_name, "shared", bare.shared))
        except building.NoLinker:
            members.append(Member(f"{self.name}.o", "object", bare.code))
        members.append(Member(f"{self.name}.h", "header", self.text("header").encode()))
        return b"".join(bundle.encode(self.manifest, members))
