"""Imports only go down, and importing is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("ir", "runtime", "passes", "codegen", "frontend", "tools")
ABOVE = ROOT / "frontend" / "__main__.py"  # `python -m tcc` is the command line, which lives one floor up
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py")) if path != ABOVE]
CHEAP_IMPORT = 0.020  # seconds that `import tcc` may take beyond NumPy's own import


def floor_of(module: str) -> int:
    """The height of `tcc.ir.core`; whatever is not a lower package belongs to the frontend."""
    parts = module.split(".")
    named = parts[1] if len(parts) > 1 and parts[1] in FLOORS else "frontend"
    return FLOORS.index(named)


def module_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = [part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"]
    return ".".join(["tcc", *parts[parts[0] == "frontend" :]])


MODULES = {module_of(path): path for path in FILES}


def imports(nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    """(line, absolute module name) of the imports among nodes of a file."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tcc":
            found += [(node.lineno, f"tcc.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = FLOORS.index(path.relative_to(ROOT).parts[0])
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(ast.walk(ast.parse(path.read_text())))
        if name.startswith(".") or (name.split(".")[0] == "tcc" and floor_of(name) > here)
    ]
    assert wrong == []


def imported(path: Path) -> set[str]:
    """The modules whose import a file's own import waits for: not those in functions, nor those for type checkers."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found & MODULES.keys()


def test_imports_have_no_circle() -> None:
    waits = {name: imported(path) - {"tcc"} for name, path in MODULES.items()}
    TopologicalSorter(waits).prepare()  # CycleError names the circle


def child(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module, absent",
    [
        ("tcc", ("llvmlite", "pycuda", "click", "scipy", "matplotlib")),
        ("tcc.runtime", ("llvmlite", "pycuda", "click", "tcc.codegen", "tcc.passes")),
    ],
)
def test_import_is_lazy(module: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    assert child(program) == "[]"


def test_a_function_for_the_cpu_loads_nothing_of_devices_nor_passes_if_the_cache_has_it(
    tmp_path: Path,
) -> None:
    program = (
        f"import os, sys, tcc; os.environ['TCC_CACHE_DIR'] = {str(tmp_path)!r}; "
        "x = tcc.tensor.vector(); tcc.function([x], x + 1)([1.0]); "
        "print([name for name in ('tcc.devices', 'tcc.runtime.device_program', 'tcc.passes.rules') if name in sys.modules])"
    )
    assert child(program) == "['tcc.passes.rules']"
    assert child(program) == "[]"


def test_import_is_quick() -> None:
    """Best of several processes: the import's own cost and not the machine's other work."""
    program = (
        "import numpy, time; start = time.perf_counter(); import tcc; print(time.perf_counter() - start)"
    )
    assert min(float(child(program)) for _ in range(5)) < CHEAP_IMPORT
