"""Functions found in the cache: keyed by what they compute, not by where they were written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = """
{blank}import numpy as np
import tcc, tcc.tensor as T
x, i = T.fmatrix('x'), T.lvector('i')
{name} = tcc.function([x, i], (x * 3)[i])
print({name}(np.ones((2, 2), 'f'), [1]))
print({name}.program.history[0].cached)
try:
    {name}(np.ones((2, 2), 'f'), [5])
except IndexError as e:
    print(e)
"""


def run(folder: Path, cache: Path, file: str, name: str, blank: str) -> list[str]:
    (folder / file).write_text(textwrap.dedent(PROGRAM).format(name=name, blank=blank))
    environment = {**os.environ, "TCC_CACHE_DIR": str(cache), "TCC_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, file], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_same_function_elsewhere_is_found_and_its_errors_name_its_own_line(tmp_path):
    first = run(tmp_path, tmp_path / "cache", "a.py", "f", "")
    second = run(tmp_path, tmp_path / "cache", "b.py", "g", "\n\n\n")
    assert first[:2] == ["[[3. 3.]]", "False"] and second[:2] == ["[[3. 3.]]", "True"]
    assert "a.py:5" in "\n".join(first) and "b.py:8" in "\n".join(second)
