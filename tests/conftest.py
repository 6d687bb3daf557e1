from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from filetest import FileTest
from guarded import guarded

from tcc.codegen import jit
from tcc.codegen.target import Target, chosen, host, plain
from tcc.runtime import arenas, cache


def compiled_once(sampled: bool) -> None:
    """Many tests make the same modules: a process compiles each once, whatever a test's cache is.

    Other forms of its code that TCC_TARGET asks for run on this machine too: those with the same text have its object, unless it
    has instructions of its own.  These others, and but for one of sixteen the rest, by their text, are compiled in LLVM's quick
    way: tests are about the text, which no pass of LLVM's changes before it is encoded.  If not `sampled`, all of the rest are
    compiled as programs have them.
    """
    compile_object, made = jit.compile_object, dict[tuple[object, ...], bytes]()

    def once(text: str, target: Target, level: int = 2) -> bytes:
        other = target != host() and target in (chosen(), plain(128), plain(256))
        if other:
            level = 0
        shared = (other or target == host()) and "@llvm.x86." not in text
        key = hashlib.sha256(text.encode()).digest(), target.fma if shared else target
        if target == host() and sampled and key[0][0] % 16:
            level = 0
        code = made.get((*key, 2)) or made.get((*key, level))
        if code is None:
            code = made[*key, level] = compile_object(text, target, level)
        return code

    jit.compile_object = once


# a shell starts what runs in the background without interrupts, which tests send
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or fills the user's cache, nor does a program that a test starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCC_CACHE_DIR", str(folder))
        patch.setattr(cache, "_default", [cache.Cache(folder)])
        yield folder


@pytest.fixture(autouse=True)
def guard_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel may leave the memory that its function takes."""
    monkeypatch.setattr(arenas, "_map", guarded)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="compile all code as programs have it")
    parser.addoption(
        "--bless", action="store_true", help="write what the compiler prints now into the .tcir tests"
    )


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    # those in regressions/ are whole programs, which test_fuzz.py runs natively
    if file_path.suffix != ".tcir" or file_path.parent.name == "regressions":
        return None
    return FileTest.from_parent(parent, path=file_path)


def pytest_configure(config: pytest.Config) -> None:
    compiled_once(sampled=not config.getoption("--whole"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where this machine's own code has the form of x86-64-v3, that one's tests repeat the host's, and are among the longest."""
    this = host()
    if this.vector_bits != 256 or this.avx512 or this.byte_products or "x86" not in this.triple:
        return
    ids = {item.nodeid for item in items}
    for item in items:
        twin = re.sub(r"(?<=[\[-])(x86-64-)?v3(?=[-\]])", "host", item.nodeid)
        if twin != item.nodeid and twin in ids:
            item.add_marker(pytest.mark.long)
