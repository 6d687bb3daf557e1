from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from filetest import FileTest
from guarded import guarded

from tcc.codegen import jit
from tcc.codegen.target import Target, chosen, host, plain
from tcc.runtime import arenas, cache


def compiled_once() -> None:
    """Many tests make the same modules: a process compiles each once, whatever a test's cache is.

    Other forms of its code that TCC_TARGET asks for run on this machine too: those with the same text have its object, unless it
    has instructions of its own.  These others, and three of four of the rest, by their text, are compiled in LLVM's quick way:
    tests are about the text, which no pass of LLVM's changes before it is encoded.
    """
    compile_object, made = jit.compile_object, dict[tuple[object, ...], bytes]()

    def once(text: str, target: Target, level: int = 2) -> bytes:
        other = target != host() and target in (chosen(), plain(128), plain(256))
        if other:
            level = 0
        shared = (other or target == host()) and "@llvm.x86." not in text
        key = hashlib.sha256(text.encode()).digest(), target.fma if shared else target
        if target == host() and key[0][0] % 4:
            level = 0
        code = made.get((*key, 2)) or made.get((*key, level))
        if code is None:
            code = made[*key, level] = compile_object(text, target, level)
        return code

    jit.compile_object = once


compiled_once()

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
    parser.addoption(
        "--bless", action="store_true", help="write what the compiler prints now into the .tcir tests"
    )


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    # those in regressions/ are whole programs, which test_fuzz.py runs natively
    if file_path.suffix != ".tcir" or file_path.parent.name == "regressions":
        return None
    return FileTest.from_parent(parent, path=file_path)
