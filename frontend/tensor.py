# ruff: noqa: F401
"""Array functions under Theano's names: `import tcc.tensor as T`."""

from __future__ import annotations

from typing import Any

from tcc.creation import (
    CONSTRUCTORS,
    alloc,
    arange,
    eye,
    full,
    identity_like,
    mgrid,
    ogrid,
    ones,
    ones_like,
    tensor,
    tri,
    tril,
    triu,
    zeros,
    zeros_like,
)
from tcc.elemwise import (
    abs_,
    add,
    and_,
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctan2,
    arctanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    clip,
    cos,
    cosh,
    deg2rad,
    eq,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    fill,
    floor,
    gamma,
    gammaln,
    ge,
    gt,
    identity,
    int_div,
    inv,
    invert,
    iround,
    isclose,
    isinf,
    isnan,
    le,
    log,
    log1p,
    log2,
    log10,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    neg,
    neq,
    or_,
    pow,
    psi,
    rad2deg,
    round,
    round_half_away_from_zero,
    round_half_to_even,
    second,
    sgn,
    sin,
    sinh,
    sqr,
    sqrt,
    square,
    sub,
    switch,
    tan,
    tanh,
    tensor_copy,
    true_div,
    trunc,
    where,
    xor,
)
from tcc.indexing import inc_subtensor, set_subtensor, subtensor, take
from tcc.operators import TensorOperators as _tensor_py_operators
from tcc.products import batched_dot, batched_tensordot, dot, matmul, outer, tensordot
from tcc.reduce import (
    all,
    any,
    argmax,
    argmin,
    argsort,
    cumprod,
    cumsum,
    logsumexp,
    max,
    max_and_argmax,
    mean,
    min,
    norm,
    prod,
    ptp,
    sort,
    std,
    sum,
    var,
)
from tcc.shapes import (
    addbroadcast,
    concatenate,
    diagonal,
    dimshuffle,
    flatten,
    get_vector_length,
    get_vector_length_or_none,
    join,
    patternbroadcast,
    repeat,
    reshape,
    roll,
    shape,
    shape_padaxis,
    shape_padleft,
    shape_padright,
    size,
    split,
    squeeze,
    stack,
    stacklists,
    swapaxes,
    tile,
    transpose,
    unbroadcast,
)
from tcc.types import TensorType
from tcc.variable import (
    AsTensorError,
    Constant,
    SharedVariable,
    TensorConstant,
    TensorVariable,
    Variable,
    as_tensor_variable,
    constant,
)

_LATER = {
    "nnet": "tcc.nnet",
    "grad": "tcc.gradient",
    "Lop": "tcc.gradient",
    "jacobian": "tcc.gradient",
    "TensorSharedVariable": "tcc.sharedvar",
}
# Names that a well-known book prints and Theano never had.
_ALIASES = {
    "abs": abs_,
    "intdiv": int_div,
    "truediv": true_div,
    "one_like": ones_like,
    "stacklist": stacklists,
}


def __getattr__(name: str) -> Any:
    if name in CONSTRUCTORS:
        return CONSTRUCTORS[name]
    if name in _ALIASES:
        return _ALIASES[name]
    if name in _LATER:
        import importlib

        module = importlib.import_module(_LATER[name])
        found = module if name == "nnet" else getattr(module, name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'tcc.tensor' has no attribute {name!r}")
