"""Speed of tcc against NumPy, torch, JAX and PyTensor: `python -m benchmarks`.

Every peer is a process of its own, with the interpreter that has it installed; they take turns, one at a time.
"""
