"""The command `tcc`, and `python -m tcc` for systems where another program is called tcc."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line.  Ctrl-C is no traceback while that is still being loaded, either."""
    try:
        from tcc.tools.cli import main as run
    except KeyboardInterrupt:
        print("tcc: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
