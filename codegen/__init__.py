"""Placed IR to LLVM text to object code."""

assert __name__ == "tcc.codegen", (
    "import it as tcc.codegen; a bare `import codegen` makes a second copy of every class"
)
