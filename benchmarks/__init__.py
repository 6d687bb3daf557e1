"""Speed of tcc against NumPy, torch, JAX, PyTensor and ONNX Runtime: `python -m benchmarks`.

Every peer is a process of its own, with the interpreter that has it installed; they take turns, one at a time.

    case.py         what a case is, and the forms it can have      cases/    the cases by topic, with each library's functions
    peers/          how a library runs a case of each form         tape.py   the reference's derivatives
    worker.py       a peer's process                               processes.py   starts them
    measure.py      agreement, turns, medians                      results.py, report.py   rows, files, tables

To add a case, add it to its topic's CASES, and its function to each library's functions there.
"""
