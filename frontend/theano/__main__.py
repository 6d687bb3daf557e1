"""`python -m tcc.theano script.py [arguments]`: runs a program that was written for Theano."""

from __future__ import annotations

import os
import runpy
import sys

from tcc.theano import register


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(
            "usage: python -m tcc.theano script.py [arguments]\n       python -m tcc.theano -m module [arguments]"
        )
        sys.exit(0 if len(sys.argv) > 1 else 2)
    register()  # the program may set THEANO_FLAGS before its import
    del sys.argv[0]
    if sys.argv[0] == "-m" and len(sys.argv) > 1:
        del sys.argv[0]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    path = sys.argv[0]
    if not os.path.exists(path):
        sys.exit(f"python -m tcc.theano: no file {path}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
