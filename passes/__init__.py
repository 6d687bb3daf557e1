"""IR to IR."""

assert __name__ == "tcc.passes", (
    "import it as tcc.passes; a bare `import passes` makes a second copy of every class"
)
