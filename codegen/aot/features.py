"""What a CPU must have for code that was made for a target, and the LLVM text that looks whether it has it."""

from __future__ import annotations

from tcc.codegen.aot.messages import c_bytes, refuse, string
from tcc.codegen.target import Target, reads_assembly

# x86: LLVM's name -> (which word of cpuid, its bit).  These are the features of which LLVM makes instructions by itself.
WORDS = ((1, 0, 2), (7, 0, 1), (7, 0, 2), (7, 0, 3), (7, 1, 0), (0x80000001, 0, 2))  # leaf, subleaf, register
X86 = {
    "sse3": (0, 0), "ssse3": (0, 9), "fma": (0, 12), "cx16": (0, 13), "sse4.1": (0, 19), "sse4.2": (0, 20),
    "movbe": (0, 22), "popcnt": (0, 23), "avx": (0, 28), "f16c": (0, 29),
    "bmi": (1, 3), "avx2": (1, 5), "bmi2": (1, 8), "avx512f": (1, 16), "avx512dq": (1, 17), "adx": (1, 19),
    "avx512ifma": (1, 21), "avx512cd": (1, 28), "avx512bw": (1, 30), "avx512vl": (1, 31),
    "avx512vbmi": (2, 1), "avx512vbmi2": (2, 6), "gfni": (2, 8), "avx512vnni": (2, 11), "avx512bitalg": (2, 12),
    "avx512vpopcntdq": (2, 14), "avx512vp2intersect": (3, 8), "avx512fp16": (3, 23), "avxvnni": (4, 4),
    "avx512bf16": (4, 5), "lzcnt": (5, 5),
}  # fmt: skip
V2 = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16")
V3 = (*V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# others: LLVM's name -> its bit in what Linux says of the CPU (AT_HWCAP, and from 64 on AT_HWCAP2)
HWCAPS = {
    "aarch64": {
        "aes": 3, "sha2": 6, "crc": 7, "lse": 8, "fullfp16": 10, "rdm": 12, "dotprod": 20, "sve": 22,
        "sve2": 65, "i8mm": 77, "bf16": 78,
    },
    "riscv64": {"v": ord("v") - ord("a")},
}  # fmt: skip
CPUS = {"aarch64": "generic", "riscv64": "generic-rv64"}
AT_HWCAP, AT_HWCAP2 = 16, 26
LEVELS = {"x86-64": (), "x86-64-v2": V2, "x86-64-v3": V3, "x86-64-v4": V4}
WIDTHS = {128: V2, 256: V3, 512: V4}
AVX, AVX512 = 0b110, 0b11100110  # of XCR0: what the system keeps when it switches threads


def is_x86(target: Target) -> bool:
    return target.triple.split("-")[0] in ("x86_64", "amd64")


def portable(target: Target) -> Target:
    """The target with just those features that the library looks for."""
    if not is_x86(target):
        return target
    return target._replace(cpu="x86-64", features=",".join(f"+{n}" for n in required(target)))


def shipped(target: Target) -> Target:
    """The target as libraries are written for it: without matrix registers, for which a process has to ask the system."""
    kept = [f for f in target.features.split(",") if not f.startswith("+amx")]
    return target._replace(features=",".join(kept))


def oldest(target: Target) -> str:
    """LLVM's attributes of code that every CPU of its kind runs: what looks for features, and says which are lacking, has none."""
    arch = target.triple.split("-")[0]
    if is_x86(target):
        return '"target-cpu"="x86-64" "target-features"="+sse2"'
    wanted = [f for f in target.features.split(",") if f[1:] not in HWCAPS.get(arch, ())]
    return f'"target-cpu"="{CPUS.get(arch, target.cpu)}" "target-features"="{",".join(wanted)}"'


def required(target: Target) -> tuple[str, ...]:
    """The features that a CPU must have, in the order of X86.

    Of a CPU that is only named, what its vectors' width says is used.
    """
    given = {f[1:] for f in target.features.split(",") if f.startswith("+")}
    if not is_x86(target):
        return tuple(sorted(given))
    level = LEVELS[target.cpu] if target.cpu in LEVELS else () if given else WIDTHS[target.vector_bits]
    return tuple(n for n in X86 if n in given or n in level)


def features_text(target: Target, listed: str) -> str:
    """`unfit(who)`: 0, or what it refused; `listed` are the names of all features with commas between."""
    arch, all_names = target.triple.split("-")[0], required(target)
    if is_x86(target) and reads_assembly(target):
        places = [32 * X86[n][0] + X86[n][1] for n in all_names]
        looks, count = _cpuid_text(all_names), len(WORDS)
    elif HWCAPS.get(arch, {}).keys() & set(all_names):
        places = [HWCAPS[arch].get(n, 255) for n in all_names]
        looks, count = _auxiliary_text(), 4
    else:
        return "define internal i32 @tcc_unfit(ptr %who) #1 {\n  ret i32 0\n}\n"
    return f"""
@tcc_feature_bits = internal constant [{len(places)} x i8] {c_bytes(bytes(places))}
{string("tcc_vectors", "a system that keeps its wide registers")}
{"" if is_x86(target) else "declare i64 @getauxval(i64) nonlazybind"}
define internal i32 @tcc_unfit(ptr %who) #1 {{
entry:
  %words = alloca [{count} x i32]
  %who.i = ptrtoint ptr %who to i64
{looks}
begin:
  br label %next
next:
  %i = phi i64 [0, %begin], [%i1, %skip]
  %name = phi ptr [{listed}, %begin], [%name1, %skip]
  %bit.at = getelementptr i8, ptr @tcc_feature_bits, i64 %i
  %place = load i8, ptr %bit.at
  %unknown = icmp eq i8 %place, 255
  br i1 %unknown, label %has, label %look
look:
  %word = lshr i8 %place, 5
  %bit = and i8 %place, 31
  %word.i = zext i8 %word to i64
  %bit.i = zext i8 %bit to i32
  %has.at = getelementptr i32, ptr %words, i64 %word.i
  %flags = load i32, ptr %has.at
  %down = lshr i32 %flags, %bit.i
  %set = trunc i32 %down to i1
  br i1 %set, label %has, label %lacks
has:
  %i1 = add i64 %i, 1
  %all = icmp eq i64 %i1, {len(places)}
  br i1 %all, label %ok, label %skip
skip:
  %name.now = phi ptr [%name, %has], [%name1, %skip]
  %letter = load i8, ptr %name.now
  %name1 = getelementptr i8, ptr %name.now, i64 1
  %end = icmp eq i8 %letter, 44
  br i1 %end, label %next, label %skip
lacks:
  %name.i = ptrtoint ptr %name to i64
  %r = {refuse("cpu", "cpu", "i64 %who.i", "i64 %name.i")}
  ret i32 %r
ok:
  ret i32 0
}}
"""


def _cpuid_text(names: tuple[str, ...]) -> str:
    """Fills %words, and looks whether the system keeps the registers that these features have."""
    state = AVX512 if "avx512f" in names else AVX if "avx" in names else 0
    words = "".join(
        f"""  %r{k} = call {{ i32, i32, i32, i32 }} asm "cpuid", "={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 {leaf if leaf < 1 << 31 else leaf - (1 << 32)}, i32 {sub})
  %w{k} = extractvalue {{ i32, i32, i32, i32 }} %r{k}, {register}
  %w{k}.at = getelementptr i32, ptr %words, i64 {k}
  store i32 %w{k}, ptr %w{k}.at
"""
        for k, (leaf, sub, register) in enumerate(WORDS)
    )
    if not state:
        return f"{words}  br label %begin"
    return f"""{words}  %osxsave = and i32 %w0, {1 << 27}
  %asks = icmp ne i32 %osxsave, 0
  br i1 %asks, label %kept, label %unkept
kept:
  %x = call {{ i32, i32 }} asm "xgetbv", "={{ax}},={{dx}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 0)
  %xcr = extractvalue {{ i32, i32 }} %x, 0
  %on = and i32 %xcr, {state}
  %saved = icmp eq i32 %on, {state}
  br i1 %saved, label %begin, label %unkept
unkept:
  %u = {refuse("cpu", "cpu", "i64 %who.i", "i64 ptrtoint (ptr @tcc_vectors to i64)")}
  ret i32 %u"""


def _auxiliary_text() -> str:
    """Fills %words with what Linux tells every program of its CPU."""
    return f"""  %cap = call i64 @getauxval(i64 {AT_HWCAP})
  store i64 %cap, ptr %words
  %cap2 = call i64 @getauxval(i64 {AT_HWCAP2})
  %cap2.at = getelementptr i64, ptr %words, i64 1
  store i64 %cap2, ptr %cap2.at
  br label %begin"""
