"""mypy over every source file, and a count that shows it saw them all.

Pointed at the wrong folder, a type checker reports no error on nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tcc.tools.link import ROOT, link, package_dirs


def package_files() -> int:
    """How many Python files the packages hold."""
    return len({file for folder in package_dirs().values() for file in folder.rglob("*.py")})


def script_files() -> int:
    """How many Python files stand beside the package."""
    return sum(len(list((ROOT / folder).rglob("*.py"))) for folder in ("examples", "benchmarks"))


def run(args: list[str], wanted: int) -> int:
    """mypy's exit status, or 1 when it checked another number of files than `wanted`."""
    done = subprocess.run([sys.executable, "-m", "mypy", *args], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout + done.stderr, end="")
    if done.returncode:
        return done.returncode
    checked = re.search(r"in (\d+) source file", done.stdout)
    if checked is None or int(checked[1]) != wanted:
        print(f"mypy {' '.join(args)} should have checked {wanted} files")
        return 1
    return 0


def main() -> int:
    link()
    return run([], package_files()) or run(["examples", "benchmarks"], script_files())


if __name__ == "__main__":
    sys.exit(main())
