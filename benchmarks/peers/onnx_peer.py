"""ONNX Runtime, for cases that only infer: it runs torch's function, exported."""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import onnxruntime
import torch

from benchmarks.case import Array, Case, Function, Inputs, NotYet, Task, Values

THREADS = len(os.sched_getaffinity(0))


class Exported(torch.nn.Module):  # type: ignore[misc]
    """The function with what is held as parameters, which become constants of the model."""

    def __init__(self, f: Function, inputs: Inputs, held: tuple[str, ...]) -> None:
        super().__init__()
        self.f, self.order = f, list(inputs)
        self.held = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(torch.from_numpy(inputs[name]), requires_grad=False) for name in held}
        )

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        left = iter(given)
        return self.f(*(self.held[name] if name in self.held else next(left) for name in self.order))


def task(case: Case, f: Function, inputs: Inputs) -> Task:
    if not isinstance(case.form, Values):
        raise NotYet("onnxruntime only infers")
    given = {name: value for name, value in inputs.items() if name not in case.form.held}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further packages is called old
        try:
            torch.onnx.export(
                Exported(f, inputs, case.form.held).eval(),
                tuple(map(torch.from_numpy, given.values())),
                file,
                dynamo=False,
                input_names=list(given),
            )
        except torch.onnx.errors.UnsupportedOperatorError as e:
            raise NotYet("ONNX has no such operator") from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    names = {"f": session.run, "none": None, "given": given}

    def results() -> list[Array]:
        return [np.array(value) for value in session.run(None, given)]

    return Task("f(none, given)", names, results)


def warm_up() -> None:
    """Everything is imported."""
