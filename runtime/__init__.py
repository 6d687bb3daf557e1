"""Buffers, threads, the cache and the loading of compiled code.  A compiled model runs with this and tcc.ir.types alone."""

assert __name__ == "tcc.runtime", (
    "import it as tcc.runtime; a bare `import runtime` makes a second copy of every class"
)
