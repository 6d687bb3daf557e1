"""Models compiled by `tcc compile` against ONNX Runtime and against the running program, all of them called from C."""
