"""What the machine is measured to do at best is done on registers alone."""

from __future__ import annotations

import pytest

from tcc.codegen.jit import assembly
from tcc.codegen.target import KNOWN
from tcc.tools.peak import multiply


@pytest.mark.parametrize("elem", ["float", "double"])
def test_no_sum_is_spilled(elem: str) -> None:
    for target in KNOWN[:2]:
        text = assembly(multiply(target, elem), target)
        assert "fmadd" in text and "(%rsp)" not in text, target.cpu
