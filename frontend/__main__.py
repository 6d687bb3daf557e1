"""`python -m tcc`, for systems where another program is called tcc."""

from __future__ import annotations

from tcc.tools.cli import main

main()
