"""Coverage-guided fuzzing of all that reads a file which may come from elsewhere; `make fuzz` runs it.

    python tests/fuzz/files.py TARGET [CORPUS_FOLDER] [libFuzzer's options, such as -max_total_time=60]

A target ends in a read value that writes and reads back, or in the one exception that its reader promises; anything else,
more than 2 GB or 20 seconds is a finding, whose input libFuzzer leaves as crash-*, oom-* or timeout-*.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tcc", "json", "zipfile", "ast"]):
    import numpy as np

    from tcc.ir import safetensors
    from tcc.ir.dims import parse_size
    from tcc.ir.printer import print_module
    from tcc.ir.text import ParseError, parse
    from tcc.ir.verify import VerifyError, verify
    from tcc.loading import module_of
    from tcc.runtime import bundle, weights
    from tcc.runtime.bundle import BundleError, Member
    from tcc.runtime.manifest import Array, Entry, Manifest, ManifestError, Range, Target
    from tcc.runtime.weights import WeightsError

TEXT = b"""func @f(%x: f32[n,3], %i: i64[m], %w: f32[3,k]) -> (f32[m,k], f32[3,k]) {shared = ["w"], updates = {w = 1}} {
  %0 = matmul %x, %w : f32[n,k] loc "m.py:3"
  check_index %i {bound = n} loc "m.py:4"
  %1 = gather %0, %i {axes = [0]} : f32[m,k]
  %2 = const {value = [[1.0], [-inf], [2e-3]], type = f32[3,1]} : f32[3,1]
  %3 = broadcast %2 {shape = (3, k)} : f32[3,k]
  %4 = sub %w, %3 : f32[3,k]
  %5 = slice %1 {start = (0, 0), size = (m, k), step = (1, 1)} : f32[m,k]
  %6 = scan %5 {seqs = 0, carries = 1, length = max(n, 2*m-1)} (%s: f32[m,k]) {
    %7 = tanh %s : f32[m,k]
    yield %7
  } : f32[m,k]
  yield %6, %4
}
"""
TENSORS = {
    "w": safetensors.tensor(np.arange(6, dtype="f4").reshape(3, 2)),
    "0" * 32: safetensors.tensor(np.ones(3, "?")),
}
RECORDS = bundle.records(TENSORS)
MANIFEST = Manifest(
    "m",
    "0.1.0",
    "20.1.8",
    (
        Entry(
            "f",
            (Array("x", "f32", ("n", 3)), Array("i", "i64", ("m",))),
            (Array("y", "f32", ("m", "k")),),
            ("w",),
            ("w",),
            {"n": Range(), "m": Range(1, 9)},
            "array",
        ),
    ),
    (RECORDS["w"],),
    (RECORDS["0" * 32],),
    (),
    Target("x86_64-unknown-linux-gnu", "x86-64-v3", ("avx2",)),
)
WEIGHTS = b"".join(safetensors.encode(TENSORS))
MEMBERS = [Member("model.tcir", "tcir", TEXT), Member("weights.safetensors", "weights", WEIGHTS)]
FILE = Path(tempfile.mkdtemp(prefix="tcc-fuzz-")) / "input"


def on_disk(data: bytes, suffix: str) -> Path:
    path = FILE.with_suffix(suffix)
    path.write_bytes(data)
    return path


def manifest(data: bytes) -> None:
    try:
        got = Manifest.from_json(data)
    except ManifestError:
        return
    assert Manifest.from_json(got.to_json()) == got


def size(data: bytes) -> None:
    try:
        got = parse_size(data.decode("latin-1"))
    except ValueError:
        return
    assert parse_size(str(got)) == got


def tensors(data: bytes) -> None:
    try:
        got = safetensors.decode(data)
    except ValueError:
        return
    again = safetensors.decode(b"".join(safetensors.encode(got)))
    assert got.keys() == again.keys()
    assert all(got[n].array.tobytes() == again[n].array.tobytes() for n in got)


def npz(data: bytes) -> None:
    try:
        weights.read(on_disk(data, ".npz"))
    except WeightsError:
        return


def npy(data: bytes) -> None:
    try:
        weights.read_npy(on_disk(data, ".npy"))
    except WeightsError:
        return


def text(data: bytes) -> None:
    try:
        module = parse(data, "x.tcir", {"0" * 32: TENSORS["0" * 32].array}, beside=False)
        for func in module.values():
            verify(func)
    except (ParseError, VerifyError):
        return
    printed = print_module(module)
    assert (
        print_module(parse(printed, beside=False, constants={"0" * 32: TENSORS["0" * 32].array})) == printed
    )


def whole(data: bytes) -> None:
    """The file as it is: the checks of its layout."""
    try:
        bundle.read(on_disk(data, ".tcb"))
    except BundleError:
        return


def members(data: bytes) -> None:
    """One member, chosen by the first byte, is what follows; the checksums are right."""
    contents = {"manifest.json": None, **{m.name: m.data for m in MEMBERS}}
    chosen = list(contents)[data[0] % len(contents)] if data else "model.tcir"
    contents[chosen] = data[1:]
    if chosen != "manifest.json":
        made = [m._replace(data=contents[m.name] or b"") for m in MEMBERS]
        whole_file = b"".join(bundle.encode(MANIFEST, made))
    else:
        heads, tail = bundle._layout([(n, len(d or b""), zlib.crc32(d or b"")) for n, d in contents.items()])
        whole_file = b"".join(p for h, d in zip(heads, contents.values()) for p in (h, d or b"")) + tail
    try:
        module_of(bundle.read(on_disk(whole_file, ".tcb")))
    except BundleError:
        return


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "manifest": (manifest, [bundle.encode(MANIFEST, MEMBERS)[1]]),
    "size": (size, [b"2*n+max(m, 1)//3", b"(a+b)*(a-b)%7"]),
    "tensors": (tensors, [WEIGHTS]),
    "npz": (npz, []),
    "npy": (npy, []),
    "text": (text, [TEXT]),
    "whole": (whole, [b"".join(bundle.encode(MANIFEST, MEMBERS))]),
    "members": (members, [b"\0" + bundle.encode(MANIFEST, MEMBERS)[1], b"\1" + TEXT, b"\2" + WEIGHTS]),
}


def seeds(name: str, folder: Path) -> None:
    """What mutations begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = TARGETS[name][1]
    if name in ("npz", "npy"):
        np.savez(FILE.with_suffix(".npz"), a=np.ones((2, 3), "f4"), b=np.arange(3))
        np.savez_compressed(FILE.with_suffix(".c.npz"), a=np.ones((2, 3), "f4"))
        np.save(FILE.with_suffix(".npy"), np.asfortranarray(np.ones((2, 3), ">f8")))
        found = (".npz", ".c.npz") if name == "npz" else (".npy",)
        inputs = [FILE.with_suffix(s).read_bytes() for s in found]
    for number, data in enumerate(inputs):
        (folder / f"seed{number}").write_bytes(data)


def main() -> None:
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: files.py {'|'.join(TARGETS)} [CORPUS] [OPTIONS]")
    folder = next((a for a in sys.argv[1:] if not a.startswith("-")), None)
    if folder is None:
        folder = tempfile.mkdtemp(prefix=f"tcc-fuzz-{name}-")
        sys.argv.append(folder)
    seeds(name, Path(folder))
    atheris.Setup([*sys.argv, "-timeout=20", "-rss_limit_mb=2048", "-max_len=6000"], TARGETS[name][0])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
