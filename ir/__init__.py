"""Types, sizes, the op table, the text form, the verifier, the interpreter and the knobs."""

assert __name__ == "tcc.ir", "import it as tcc.ir; a bare `import ir` makes a second copy of every class"
