"""Small compiled functions to test the runtime with: a signature and a body in LLVM text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tcc.codegen import support
from tcc.codegen.entry import entry_text
from tcc.codegen.jit import Image, compile_object
from tcc.codegen.target import host
from tcc.ir.types import numpy_dtype
from tcc.runtime.callable import Function, Parameter, Variant
from tcc.runtime.signature import Signature
from tcc.runtime.symbols import symbols

RUN = "define i32 @run(ptr %frame) #0 {"


def slot(name: str, index: int, kind: str = "ptr") -> str:
    """Text that loads slot `index` of the frame as `%name`."""
    return f"""
  %{name}.at = getelementptr i64, ptr %frame, i64 {index}
  %{name} = load {kind}, ptr %{name}.at"""


def body(text: str) -> str:
    """A whole module around the lines of `run`, with the support functions declared."""
    return "\n".join(support.DECLARATIONS.values()) + f"\n{RUN}\n{text}\n}}\n"


def build(signature: Signature, text: str, **options: Any) -> Variant:
    """Compiles entry and body, with nothing kept on disk."""
    addresses = {**symbols(), **support.load()}
    objects = [compile_object(t, host()) for t in (entry_text("f", signature, "run"), text)]
    image = Image.load(objects, addresses)
    return Variant(signature, image.address("f"), image, **options)


def function(variant: Variant, name: str = "f") -> Function:
    """Its arguments are converted as NumPy does it."""
    parameters = [
        Parameter(s.name or f"x{i}", s.dtype, s.rank, lambda v, d=s.dtype: np.asarray(v, numpy_dtype(d)))
        for i, s in enumerate(variant.signature.inputs)
    ]
    return Function(name, parameters, lambda f, arrays: variant)


Build = Callable[..., Function]
