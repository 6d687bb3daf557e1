"""The models in ONNX, written into a folder by a Python that has the package onnx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.libraries.models import SHAPES, UNITS, WORDS, weights


def write(folder: Path, name: str) -> None:
    w = weights(name)
    dense = [
        ("Gemm", ["h", "W1", "b1"], "d", {}),
        ("Tanh", ["d"], "e", {}),
        ("Gemm", ["e", "W2", "b2"], "z", {}),
        ("Softmax", ["z"], "y", {"axis": 1}),
    ]
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
    if name == "mlp":
        nodes = [("Gemm", ["x", "W1", "b1"], "d", {}), *dense[1:]]
    elif name == "lenet":
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        for i, (x, to) in enumerate((("x", "a"), ("a", "b")), 1):
            w[f"K{i}"] = w[f"K{i}"][:, :, ::-1, ::-1]  # ONNX's filters are not turned round
            nodes += [
                ("Conv", [x, f"K{i}", f"c{i}"], f"conv{i}", {"kernel_shape": [5, 5]}),
                ("MaxPool", [f"conv{i}"], f"pool{i}", pool),
                ("Tanh", [f"pool{i}"], to, {}),
            ]
        nodes += [("Flatten", ["b"], "h", {"axis": 1}), *dense]
    elif name == "lstm":

        def gates(a: Any) -> Any:
            i, f, g, o = np.split(a, 4, axis=-1)
            return np.concatenate([i, o, f, g], -1)

        bias = np.concatenate([gates(w["b"]), np.zeros(4 * UNITS, np.float32)])
        w = {
            "V": w["V"],
            "c": w["c"],
            "W": gates(w["W"]).T[None],
            "R": gates(w["U"]).T[None],
            "B": bias[None],
        }
        w["axis"] = np.array([0])
        nodes = [
            ("LSTM", ["x", "W", "R", "B"], "all last", {"hidden_size": UNITS}),
            ("Squeeze", ["last", "axis"], "h", {}),
            ("Gemm", ["h", "V", "c"], "z", {}),
            ("Softmax", ["z"], "y", {"axis": 1}),
        ]
    else:
        nodes = [
            ("Gather", ["into", "x"], "e", {}),
            ("ReduceMean", ["e"], "m", {"axes": [1], "keepdims": 0}),
            ("MatMul", ["m", "out"], "z", {}),
            ("Softmax", ["z"], "y", {"axis": 1}),
        ]
    kind = TensorProto.INT64 if name == "cbow" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, takes, gives.split(), **attrs) for op, takes, gives, attrs in nodes],
        name,
        [helper.make_tensor_value_info("x", kind, SHAPES[name])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WORDS if name == "cbow" else 10])],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in w.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / f"{name}.onnx"))


if __name__ == "__main__":
    for each in SHAPES:
        write(Path(sys.argv[1]), each)
