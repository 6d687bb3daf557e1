"""How each library runs a case of each form: `task(case, f, inputs)` in the library's module."""
