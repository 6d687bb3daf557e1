"""What the code generator knows of the machine it writes for."""

from __future__ import annotations

import ctypes
import difflib
import functools
import os
import tempfile
from typing import NamedTuple

from tcc.codegen.emit import VecType
from tcc.ir import knobs

# x86's levels: the vectors' width, and a feature that a machine of that level has and one below has not
LEVELS = {"x86-64-v2": (128, "sse4.2"), "x86-64-v3": (256, "avx2"), "x86-64-v4": (512, "avx512vl")}

# CPUs, as LLVM names them, that execute 512-bit instructions as two halves
HALVES = frozenset({"znver4"})


class Target(NamedTuple):
    """A CPU.  `avx512` allows x86's own intrinsics; without it the text is plain vectors that any target can select."""

    triple: str
    cpu: str
    features: str  # LLVM's comma-separated list
    vector_bits: int
    avx512: bool = False
    l1_bytes: int = 32 << 10
    l2_bytes: int = 1 << 20
    f16c: bool = False  # x86's conversions between float16 and float32
    fma: bool = True  # whether a fused multiply-add is an instruction; without it, a product and a sum

    @property
    def is_gpu(self) -> bool:
        return self.triple.startswith("nvptx")

    @property
    def multiply_adds(self) -> int:
        """Of whole vectors, in a cycle."""
        return 1 if self.avx512 and self.cpu in HALVES else 2

    @property
    def scattered_lines(self) -> bool:
        """Whether lines from beyond the second-level cache come as fast one by one as along rows: not on Intel's, where few may be
        under way but for those that its prefetcher asks for, which follows rows."""
        return self.cpu.startswith("znver")

    @property
    def byte_products(self) -> bool:
        """Whether it has x86's instruction for sums of four products of bytes."""
        features = self.features.split(",")
        return "+avx512vnni" in features if self.avx512 else self.f16c and "+avxvnni" in features

    @property
    def avx2(self) -> bool:
        """Whether it has x86's vectors of 256 bits and what goes with them: lanes moved by numbers in another vector, gathers, and
        stores of a part of a vector."""
        return self.f16c and self.vector_bits >= 256

    @property
    def assembles(self) -> bool:
        """Whether register tiles are written as x86's instructions: those of AVX2 (codegen/assembly.py)."""
        return self.avx2 and not self.avx512 and _takes_assembly(self)

    @property
    def registers(self) -> int:
        """Of whole vectors, at least."""
        return 32 if self.avx512 or self.triple.startswith("aarch64") else 16

    def vector(self, elem: str) -> VecType:
        """The widest vector of `elem`."""
        return VecType(elem, self.vector_bits // (8 * VecType(elem).bytes))

    @property
    def bf16_products(self) -> bool:
        """Whether it has an instruction for sums of products of bfloat16."""
        return self.avx512 and "+avx512bf16" in self.features.split(",")

    def matrices(self, dtype: str) -> bool:
        """Whether it has x86's matrix registers, with the instruction for products of a dtype (i8 u8 bf16)."""
        wanted = {"+amx-tile", "+amx-bf16" if dtype == "bf16" else "+amx-int8"}
        return self.avx512 and wanted <= set(self.features.split(","))

    @property
    def attributes(self) -> str:
        """The attribute group that every emitted function refers to as #0."""
        width = self.vector_bits
        return (
            f'attributes #0 = {{ nounwind "target-cpu"="{self.cpu}" "target-features"="{self.features}" '
            f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" }}\n'
        )


def reads_assembly(target: Target) -> bool:
    """Whether LLVM, here, can encode what only assembly says: it has a reader for machines of this one's kind alone."""
    return target.triple.split("-")[0] == host().triple.split("-")[0]


@functools.cache
def _takes_assembly(target: Target) -> bool:
    """Whether LLVM, here, takes AVX2's instructions for it: not for a CPU of whose features it is not told."""
    named = target.cpu == "x86-64-v3" or {"+avx2", "+fma"} <= {*target.features.split(",")}
    return named and reads_assembly(target)


@functools.cache
def host() -> Target:
    """This machine."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if features.get("amx-tile") and not _may_use_matrices():
        for name in features:
            features[name] = features[name] and not name.startswith("amx")
    avx512 = all(features.get(f) for f in ("avx512f", "avx512dq", "avx512bw", "avx512vl"))
    width = 512 if avx512 else 256 if features.get("avx2") and features.get("fma") else 128
    return Target(
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        features.flatten(),
        width,
        avx512,
        _cache_bytes(1, 32 << 10),
        _cache_bytes(2, 1 << 20),
        avx512 or bool(features.get("f16c")),
        "x86" not in llvm.get_process_triple() or bool(features.get("fma")),
    )


def chosen() -> Target:
    """The target that the environment asks for: this machine, its plain form, or an older machine of its kind."""
    name = knobs.TARGET.get()
    if name == "host":
        return host()
    return plain(knobs.VECTOR_BITS.get()) if name == "plain" else level(name)


def _may_use_matrices() -> bool:
    """Asks Linux for x86's matrix registers, of which a process has none until it has asked."""
    arch_prctl, request, registers = 158, 0x1023, 18
    try:
        return bool(ctypes.CDLL(None).syscall(arch_prctl, request, registers) == 0)
    except (OSError, AttributeError):  # no such call here
        return False


def _cache_bytes(level: int, otherwise: int) -> int:
    base = "/sys/devices/system/cpu/cpu0/cache"
    for index in range(8):
        try:
            with open(f"{base}/index{index}/level") as f:
                found = int(f.read())
            with open(f"{base}/index{index}/type") as f:
                kind = f.read().strip()
            if found != level or kind == "Instruction":
                continue
            with open(f"{base}/index{index}/size") as f:
                text = f.read().strip()
        except OSError:
            return otherwise
        return int(text[:-1]) * (1024 if text.endswith("K") else 1 << 20)
    return otherwise


def plain(bits: int = 256) -> Target:
    """The host without its own intrinsics: what the portable form is tested with."""
    this = host()
    return Target(
        this.triple, this.cpu, this.features, bits, False, this.l1_bytes, this.l2_bytes, fma=this.fma
    )


def level(name: str) -> Target:
    """This machine as if it had only the instructions of one of x86's LEVELS; KnobError if it has not even those."""
    import llvmlite.binding as llvm

    this, (bits, feature) = host(), LEVELS[name]
    if not llvm.get_host_cpu_features().get(feature):
        raise knobs.KnobError(f"TCC_TARGET={name} needs a CPU with {feature}, and this one is {this.cpu}")
    newer = bits > 128
    return Target(this.triple, name, "", bits, bits == 512, this.l1_bytes, this.l2_bytes, newer, newer)


# -- other machines ----------------------------------------------------------------------------------------------

LINUX_X86, LINUX_ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
LINUX_RISCV, WASM = "riscv64-unknown-linux-gnu", "wasm32-unknown-unknown"

# What code is made for, and checked on; the first of a triple is its default.  The caches are those of a small such machine.
KNOWN = (
    Target(LINUX_X86, "x86-64-v3", "", 256, False, 32 << 10, 512 << 10, True),
    Target(LINUX_X86, "x86-64-v4", "", 512, True, 32 << 10, 1 << 20, True),
    Target(LINUX_X86, "x86-64-v2", "", 128, False, 32 << 10, 256 << 10, False, False),
    Target(LINUX_ARM, "generic", "+neon", 128, False, 32 << 10, 512 << 10),
    Target(LINUX_RISCV, "generic-rv64", "+m,+a,+f,+d,+c", 128, False, 32 << 10, 512 << 10),
    Target(LINUX_RISCV, "generic-rv64", "+m,+a,+f,+d,+c,+v", 128, False, 32 << 10, 512 << 10),
    Target(
        WASM,
        "generic",
        "+simd128,+bulk-memory,+bulk-memory-opt",
        128,
        False,
        32 << 10,
        512 << 10,
        False,
        False,
    ),
)


class TargetError(ValueError):
    """A triple, a CPU or a feature that there is no code for; the message names the nearest that there is."""


def cross(triple: str, cpu: str = "", features: str = "") -> Target:
    """Another machine, by LLVM's names.  Without `cpu`, and without `features`, those that KNOWN has for the triple.

    `aarch64-linux-gnu` is taken for the triple that LLVM makes of it.  TargetError for names that LLVM does not know.
    """
    known = [t for t in KNOWN if _parts(t.triple) == _parts(triple)]
    if not known:
        triples = list(dict.fromkeys(t.triple for t in KNOWN))
        raise TargetError(
            f"no code is made for {triple}{_nearest(triple, triples)} (there are {', '.join(triples)})"
        )
    same = [t for t in known if t.cpu == cpu] or known[:1]
    found = next((t for t in same if not features or t.features == features), same[0])
    made = found._replace(cpu=cpu or found.cpu, features=features or found.features)
    said = _complaints(made)
    if said:
        word = said.split("'")[1] if said.startswith("'") else made.cpu
        names = _features(known) if word[:1] in "+-" else [t.cpu for t in known]
        raise TargetError(f"{said}{_nearest(word, list(dict.fromkeys(names)))}")
    return made


def _features(known: list[Target]) -> list[str]:
    """Of the machines of a triple, and of this machine if it is one of them."""
    import llvmlite.binding as llvm

    own = [f"+{f}" for f in llvm.get_host_cpu_features()] if known[0].triple[:6] == host().triple[:6] else []
    return [f for t in known for f in t.features.split(",") if f] + own


def _parts(triple: str) -> tuple[str, ...]:
    """Architecture, system and environment: what triples differ in, whoever sells the machine."""
    arch, *rest = triple.replace("arm64", "aarch64").split("-")
    return (arch, *(p for p in rest if p not in ("unknown", "pc", "none")))


def _nearest(word: str, words: list[str]) -> str:
    found = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {found[0]}?" if found and found[0] != word else ""


def _complaints(target: Target) -> str:
    """What LLVM says of a CPU and features that it does not know, which it writes to stderr and otherwise ignores."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    described = llvm.Target.from_triple(target.triple)
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            described.create_target_machine(cpu=target.cpu, features=target.features)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    return lines[0].split(" (")[0] if lines else ""
