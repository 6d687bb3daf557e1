# ruff: noqa: F401
"""tcc: write array expressions, compile them.

Names are imported when they are first used, so `import tcc` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

assert __name__ == "tcc", "import it as tcc; a bare `import frontend` makes a second copy of every class"

if TYPE_CHECKING:
    from tcc import debug as debug
    from tcc import devices as devices
    from tcc import gpu as gpu
    from tcc import gradient as gradient
    from tcc import modes as modes
    from tcc import printing as printing
    from tcc import sparse as sparse
    from tcc import tensor as tensor
    from tcc import typed_list as typed_list
    from tcc.branches import ifelse as ifelse
    from tcc.compiling import MissingInputError as MissingInputError
    from tcc.compiling import Out as Out
    from tcc.compiling import UnusedInputError as UnusedInputError
    from tcc.compiling import function as function
    from tcc.cuda_op import CudaOp as CudaOp
    from tcc.explaining import explain as explain
    from tcc.exporting import save as save
    from tcc.functions import In as In
    from tcc.gradcheck import verify_grad as verify_grad
    from tcc.gradient import Lop as Lop
    from tcc.gradient import grad as grad
    from tcc.gradient import hessian as hessian
    from tcc.gradient import jacobian as jacobian
    from tcc.gradient import subgraph_grad as subgraph_grad
    from tcc.graph import clone as clone
    from tcc.graphop import OpFromGraph as OpFromGraph
    from tcc.kernels import kernel as kernel
    from tcc.loading import load as load
    from tcc.loops import foldl as foldl
    from tcc.loops import foldr as foldr
    from tcc.loops import map as map
    from tcc.loops import reduce as reduce
    from tcc.loops import scan as scan
    from tcc.loops import until as until
    from tcc.modes import Mode as Mode
    from tcc.printing import debugprint as debugprint
    from tcc.printing import pp as pp
    from tcc.printing import pprint as pprint
    from tcc.settings import change_flags as change_flags
    from tcc.settings import config as config
    from tcc.sharedvar import shared as shared
    from tcc.tangents import Rop as Rop
    from tcc.user_op import Apply as Apply
    from tcc.user_op import Op as Op
    from tcc.user_op import as_op as as_op
    from tcc.variable import Constant as Constant
    from tcc.variable import SharedVariable as SharedVariable
    from tcc.variable import Variable as Variable
    from tcc.weights import load_weights as load_weights
    from tcc.weights import save_weights as save_weights

__version__ = "0.1.0"

_HOMES = {
    "Apply": "user_op",
    "CudaOp": "cuda_op",
    "Constant": "variable",
    "In": "functions",
    "Lop": "gradient",
    "MissingInputError": "compiling",
    "Mode": "modes",
    "Op": "user_op",
    "OpFromGraph": "graphop",
    "Out": "compiling",
    "Rop": "tangents",
    "SharedVariable": "variable",
    "UnusedInputError": "compiling",
    "Variable": "variable",
    "as_op": "user_op",
    "change_flags": "settings",
    "clone": "graph",
    "config": "settings",
    "debugprint": "printing",
    "explain": "explaining",
    "foldl": "loops",
    "foldr": "loops",
    "function": "compiling",
    "grad": "gradient",
    "hessian": "gradient",
    "ifelse": "branches",
    "jacobian": "gradient",
    "kernel": "kernels",
    "load": "loading",
    "load_weights": "weights",
    "map": "loops",
    "pp": "printing",
    "pprint": "printing",
    "reduce": "loops",
    "save": "exporting",
    "save_weights": "weights",
    "scan": "loops",
    "scan_checkpoints": "checkpoints",
    "shared": "sharedvar",
    "subgraph_grad": "gradient",
    "until": "loops",
    "verify_grad": "gradcheck",
}
_MODULES = frozenset(
    {
        "debug",
        "devices",
        "gpu",
        "random",
        "sandbox",
        "gradient",
        "modes",
        "printing",
        "sparse",
        "tensor",
        "typed_list",
    }
)

__all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"tcc.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tcc' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    found = getattr(importlib.import_module(f"tcc.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
