"""The table of Theano's modules: what each takes from tcc, and under which names.

A target is `module:attribute`, or `=word` for a constant.  `sources` are native modules all of whose names a module has.
"""

from __future__ import annotations

from tcc.theano.entries import Entry
from tcc.theano.entries import taken as _from
from tcc.theano.gpunames import GPU, GPU_TREE, REGISTER, REWRITES, R

L = "tcc.theano.legacy"
G = "tcc.theano.graphs"
O = "tcc.theano.ops"
M = "tcc.theano.matrixops"
N = "tcc.theano.netops"
X = "tcc.theano.indexops"
SP = "tcc.theano.sparseops"
C = "tcc.theano.classes"
S = "tcc.theano.scalarops"
SIX = "tcc.theano.python2"

_TYPES = {**_from("tcc.types", "TensorType Generic generic"), "Type": f"{C}:Type"}
_VARIABLES = {
    **_from("tcc.variable", "Variable Constant TensorVariable TensorConstant as_tensor_variable constant"),
    "SharedVariable": f"{C}:SharedVariable",
}
_GRAPH = {
    **_from("tcc.graph", "ancestors"),
    **_from(G, "clone general_toposort as_string is_same_graph stack_search"),
    **_from("tcc.equality", "equal_computations"),
    **_from(L, "inputs variables list_of_nodes io_toposort ops"),
    "Variable": "tcc.variable:Variable",
    "Constant": "tcc.variable:Constant",
    "Apply": "tcc.user_op:Apply",
}
_ERRORS = {
    "InconsistencyError": "tcc.compiling:InconsistencyError",
    "MissingInputError": "tcc.compiling:MissingInputError",
    "UnusedInputError": "tcc.compiling:UnusedInputError",
}
_DATABASES = {"Query": f"{R}:Rewrite", **{n: f"{R}:Database" for n in ("DB", "EquilibriumDB", "SequenceDB")}}
_MODES = _from("tcc.modes", "Mode get_mode get_default_mode DebugMode NanGuardMode MonitorMode")
_FUNCTION = {
    **_from("tcc.compiling", "function Out UnusedInputError"),
    "In": "tcc.functions:In",
    "Param": "tcc.theano.classes:Param",
}
_GRADIENT = _from(
    "tcc.gradient",
    "grad Lop jacobian DisconnectedInputError NullTypeGradError DisconnectedType disconnected_grad consider_constant "
    "zero_grad grad_clip grad_scale",
)
_DTYPES = _from(L, "all_dtypes integer_dtypes float_dtypes complex_dtypes discrete_dtypes continuous_dtypes")
_SPARSE = _from(
    SP,
    "AddSD AddSS AddSSData CSMGrad CSMProperties Cast ColScaleCSC ConstructSparseFromList DenseFromSparse Diag Dot "
    "EnsureSortedIndices GetItem2Lists GetItem2ListsGrad GetItem2d GetItemList GetItemListGrad GetItemScalar HStack MulSD "
    "MulSS MulSV Neg Remove0 RowScaleCSC SamplingDot SpSum SquareDiagonal StructuredAddSV StructuredDot "
    "StructuredDotGradCSC StructuredDotGradCSR Transpose TrueDot Usmm VStack add_s_d add_s_s add_s_s_data "
    "construct_sparse_from_list csm_grad mul_s_d mul_s_s mul_s_v structured_add_s_v all_dtypes complex_dtypes "
    "continuous_dtypes discrete_dtypes float_dtypes int_dtypes integer_dtypes uint_dtypes _is_dense _is_dense_variable "
    "_is_sparse _is_sparse_variable _mtypes",
)
_SPARSE_OPT = _from(
    SP,
    "AddSD_ccode CSMGradC MulSDCSC MulSDCSR MulSVCSR SamplingDotCSR StructuredAddSVCSR StructuredDotCSC StructuredDotCSR "
    "UsmmCscDense",
)
_INDEXING = _from(
    X,
    "AdvancedIncSubtensor AdvancedIncSubtensor1 AdvancedSubtensor AdvancedSubtensor1 IncSubtensor Subtensor "
    "AdvancedBooleanSubtensor AdvancedBooleanIncSubtensor advanced_subtensor advanced_subtensor1 advanced_inc_subtensor "
    "advanced_inc_subtensor1 advanced_set_subtensor advanced_set_subtensor1 advanced_boolean_subtensor "
    "advanced_boolean_inc_subtensor advanced_boolean_set_subtensor",
)
# What `from theano.tensor import *` brings along besides.
_STAR = {"np": "numpy:", "numpy": "numpy:", "theano": f"{L}:root", **_from(L, "compile gof")} | {
    "config": "tcc.theano.flags:config"
}
_BASIC = _from(
    L,
    "hashtype default makeKeepDims check_and_normalize_axes is_flat divmod ceil_intdiv transfer scalar_from_tensor "
    "tensor_from_scalar make_vector int_types uint_types float_types complex_types all_dtypes "
    "integer_dtypes int_dtypes uint_dtypes float_dtypes complex_dtypes discrete_dtypes continuous_dtypes Tensor "
    "_allclose _get_atol_rtol _convert_to_bool _convert_to_complex128 _convert_to_complex64 _convert_to_float16 "
    "_convert_to_float32 _convert_to_float64 _convert_to_int16 _convert_to_int32 _convert_to_int64 _convert_to_int8 "
    "_convert_to_uint16 _convert_to_uint32 _convert_to_uint64 _convert_to_uint8 scal opt",
) | {
    "NoneConst": "tcc.tensor.type_other:NoneConst",
    **_from(
        O,
        "ARange Alloc AllocDiag AllocEmpty Argmax Choose DimShuffle ExtractDiag Eye Flatten Join MaxAndArgmax Mean Nonzero "
        "PermuteRowElements Reshape ScalarFromTensor Shape SpecifyShape Split TensorFromScalar Tile Tri",
    ),
    **_from(M, "Dot"),
    **_INDEXING,
    **_from(X, "CAReduce Elemwise"),
    **_from("tcc.gradcheck", "numeric_grad verify_grad"),
    **_from(L, "NotScalarConstantError EmptyConstantError get_scalar_constant_value"),
    **_STAR,
    **_from("tcc.user_op", "Apply Op"),
    **_from(C, "Type"),
    "as_tensor": "tcc.variable:as_tensor_variable",
    "_shared": "tcc.sharedvar:shared",
    "_dot": f"{L}:_dot",
    "setdefault": f"{L}:default",
    "floor_div": "tcc.tensor:int_div",
    "mod_check": "tcc.tensor:mod",
    "power": "tcc.tensor:pow",
    "isnan_": "tcc.tensor:isnan",
    "isinf_": "tcc.tensor:isinf",
}
_NNET = _from(
    N,
    "CrossentropyCategorical1Hot CrossentropyCategorical1HotGrad CrossentropySoftmax1HotWithBiasDx "
    "CrossentropySoftmaxArgmax1HotWithBias LogSoftmax Prepend_scalar_constant_to_each_row Prepend_scalar_to_each_row Softmax "
    "SoftmaxGrad SoftmaxWithBias",
) | {"sigmoid_inplace": "tcc.tensor.nnet:sigmoid", "relu": f"{L}:relu"}
_SCALARS = {
    **_from(L, "upcast round_half_away_from_zero_vec Scalar floats ints complexs"),
    **_from(
        S,
        "ScalarOp UnaryScalarOp BinaryScalarOp same_out same_out_nocomplex same_out_float_only upcast_out upgrade_to_float "
        "upgrade_to_float_no_complex specific_out transfer_type",
    ),
    **_from(
        S,
        "AND Abs Add Angle ArcCos ArcCosh ArcSin ArcSinh ArcTan ArcTan2 ArcTanh Ceil Chi2SF Clip Conj Cos Cosh Deg2Rad EQ Erf "
        "Erfc Erfcinv Erfcx Erfinv Exp Exp2 Expm1 Floor GE GT Gamma GammaInc GammaIncC GammaL GammaLn GammaU I0 I1 Identity "
        "Imag IntDiv Inv Invert IsInf IsNan Iv J0 J1 Jv LE LT Log Log10 Log1p Log2 Maximum Minimum Mod Mul NEQ Neg OR Pow Psi "
        "Rad2Deg Real RoundHalfAwayFromZero RoundHalfToEven Second Sgn Sin Sinh Sqr Sqrt Sub Switch Tan Tanh TriGamma TrueDiv "
        "Trunc XOR",
    ),
    "constant": "tcc.variable:constant",
    "ComplexError": "tcc.elemwise:ComplexError",
    "div_proxy": "tcc.tensor:true_div",
    "get_scalar_type": f"{L}:Scalar",
    **{
        f"{kind}_types": f"{L}:scalar_{kind}_types"
        for kind in "int uint integer float complex discrete continuous all".split()
    },
}

ELEMENTWISE = (
    "abs_ add and_ arccos arccosh arcsin arcsinh arctan arctan2 arctanh ceil chi2sf conj cos cosh deg2rad eq erf erfc erfcinv "
    "erfcx erfinv exp exp2 expm1 fill floor gamma gammainc gammaincc gammal gammaln gammau ge gt i0 i1 int_div inv invert iv "
    "j0 j1 jv le log log10 log1p log2 lt maximum minimum mod mul neg neq or_ pow psi rad2deg round_half_away_from_zero "
    "round_half_to_even second sgn sin sinh sqr sqrt sub tan tanh tri_gamma true_div trunc xor"
)

PASSING = "consider_constant zero_grad disconnected_grad undefined_grad"
_SCALARS |= _from("tcc.tensor", f"{ELEMENTWISE} real imag angle switch clip cast identity isnan isinf") | {
    dtype: f"{L}:scalar_of_{dtype}"
    for dtype in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
}

TREE: dict[str, Entry] = {
    "": Entry(
        ("tcc",),
        {
            **_FUNCTION,
            **_MODES,
            **_GRADIENT,
            **_from("tcc.sharedvar", "shared"),
            **_from("tcc.loops", "scan map reduce foldl foldr"),
            **_from("tcc.settings", "change_flags"),
            **_from("tcc.theano.flags", "config"),
            **_from("tcc.printing", "pp debugprint"),
            **_from(L, "__version__ _asarray dot get_scalar_constant_value sparse_grad"),
            **_from("tcc.updates", "OrderedUpdates"),
            "function_dump": "tcc.theano.pickling:function_dump",
            "ProfileStats": "tcc.profiling:ProfileStats",
            "theano": f"{L}:root",
            **_from("tcc.types", "Type Generic generic"),
            **_from("tcc.fgraph", "FunctionGraph"),
            "gof": f"{L}:gof",
        },
    ),
    "version": Entry(names=_from(L, "version short_version full_version")),
    "updates": Entry(),
    "gradient": Entry(
        ("tcc.gradient", "tcc.tangents", "tcc.gradcheck"),
        {
            **{f"{n}_": f"tcc.gradient:{n}" for n in PASSING.split()},
            **_from(L, "format_as disconnected_type"),
        },
    ),
    "printing": Entry(
        ("tcc.printing",),
        {**_from(L, "pydot_imported pydot_imported_msg"), **_from(G, "min_informative_str var_descriptor")},
    ),
    "configparser": Entry(
        names={
            **_from("tcc.settings", "change_flags TheanoConfigParser"),
            "_config_var_list": "tcc.theano.flags:variables",
            **_from("tcc.theano.flags", "config AddConfigVar StrParam IntParam FloatParam BoolParam EnumStr"),
        }
    ),
    "configdefaults": Entry(
        names={**_from("tcc.theano.flags", "config"), **_from(L, "local_bitwidth python_int_bitwidth")}
    ),
    "ifelse": Entry(names={**_from("tcc.branches", "ifelse"), **_from(O, "IfElse")}),
    "raise_op": Entry(names={"Assert": "tcc.debug:Assert", "assert_op": f"{L}:assert_op"}),
    # -- graphs ---------------------------------------------------------------------------------------------------
    "gof": Entry(
        names={
            **_GRAPH,
            **_TYPES,
            **_ERRORS,
            "Op": "tcc.user_op:Op",
            "PureOp": "tcc.user_op:Op",
            "COp": f"{GPU}:COp",
            **REWRITES,
            **_DATABASES,
            **_from("tcc.fgraph", "FunctionGraph"),
            "utils": f"{L}:gof_utils",
        }
    ),
    "gof.cmodule": Entry(names={"get_lib_extension": f"{R}:get_lib_extension"}),
    "gof.compilelock": Entry(("tcc.theano.locks",)),
    "gof.graph": Entry(names=_GRAPH),
    "gof.opt": Entry(names=REWRITES),
    "gof.optdb": Entry(names=_DATABASES),
    "gof.fg": Entry(names={**_ERRORS, **_from("tcc.fgraph", "FunctionGraph")}),
    "gof.op": Entry(
        names={
            "Op": "tcc.user_op:Op",
            "PureOp": "tcc.user_op:Op",
            **_from(
                G, "get_test_value missing_test_message debug_error_message get_debug_values debug_assert"
            ),
        }
    ),
    "gof.type": Entry(names=_TYPES),
    "gof.null_type": Entry(names=_from("tcc.gradient", "NullType")),
    "gof.utils": Entry(
        names={**_from(L, "MethodNotDefined TestValueError"), **_from(G, "give_variables_names remove")}
    ),
    # -- compilation ----------------------------------------------------------------------------------------------
    "compile": Entry(
        names={
            **_FUNCTION,
            **_MODES,
            **_ERRORS,
            **_VARIABLES,
            **_from("tcc.sharedvar", "shared"),
            **_from("tcc.user_op", "as_op"),
            **_from(C, "ViewOp view_op"),
            **_from("tcc.theano.flags", "config"),
            **_from("tcc.graphop", "OpFromGraph"),
            **_from("tcc.compiling", "function"),
            **_from("tcc.shapes", "specify_shape"),
            "ProfileStats": "tcc.profiling:ProfileStats",
            "pfunc": f"{L}:pfunc",
            **_from(L, "FAST_RUN FAST_COMPILE"),
            "mode": f"{L}:compile_mode",
            "optdb": f"{R}:optdb",
        }
    ),
    "compile.mode": Entry(
        names={
            **_MODES,
            **_from(L, "FAST_RUN FAST_COMPILE"),
            "predefined_modes": "tcc.modes:PREDEFINED",
            "optdb": f"{R}:optdb",
        }
    ),
    "compile.debugmode": Entry(("tcc.modes",), {"default_make_thunk": f"{R}:default_make_thunk"}),
    "compile.nanguardmode": Entry(("tcc.modes",)),
    "compile.monitormode": Entry(names={**_from("tcc.modes", "MonitorMode"), **_from(L, "detect_nan")}),
    "compile.function_module": Entry(names={**_ERRORS, "Function": "tcc.functions:Made"}),
    "compile.function": Entry(names=_FUNCTION),
    "compile.pfunc": Entry(names={**_FUNCTION, "pfunc": f"{L}:pfunc"}),
    "compile.io": Entry(names=_FUNCTION),
    "compile.sharedvalue": Entry(
        names={
            **_from("tcc.sharedvar", "shared"),
            **_from(C, "SharedVariable"),
            **_from("tcc.types", "generic"),
        }
    ),
    "compile.profiling": Entry(names=_from("tcc.profiling", "ProfileStats")),
    "compile.builders": Entry(names=_from("tcc.graphop", "OpFromGraph")),
    "compile.ops": Entry(
        names={
            **_from("tcc.user_op", "as_op FromFunctionOp"),
            **_from(C, "ViewOp view_op"),
            **_from("tcc.shapes", "rebroadcast specify_shape shape"),
            **_from("tcc.matrices", "Rebroadcast"),
        }
    ),
    # -- scan -----------------------------------------------------------------------------------------------------
    "scan_module": Entry(("tcc.loops",), {**_from("tcc.loops", "scan until map reduce foldl foldr")}),
    "scan_module.scan_utils": Entry(
        names={
            **_from("tcc.equality", "equal_computations"),
            **_from("tcc.loops", "until"),
            **_from("tcc.graph", "clone"),
            **_from(G, "map_variables"),
        }
    ),
    "scan_module.scan": Entry(names=_from("tcc.loops", "scan")),
    "scan_module.scan_op": Entry(names=_from(O, "Scan")),
    # -- tensors: a native module of the same path is taken without being named here ---------------------------------
    "tensor": Entry(
        names={
            **_VARIABLES,
            **_from("tcc.types", "TensorType"),
            **_from("tcc.gradient", "grad Lop jacobian hessian"),
            **_from("tcc.tangents", "Rop"),
            **_from("tcc.gradcheck", "verify_grad"),
            **_from("tcc.variable", "AsTensorError"),
            **_BASIC,
            **_from(
                L,
                "abs intdiv truediv one_like stacklist scan dot",
            ),
            "sharedvar": f"{L}:tensor_sharedvar",
            "basic": f"{L}:tensor_basic",
            "subtensor": f"{L}:tensor_subtensor",
        },
    ),
    "tensor.basic": Entry(
        ("tcc.tensor",),
        {**_BASIC, **_from(L, "dot"), **_from("tcc.variable", "AsTensorError as_tensor_variable constant")},
    ),
    "tensor.var": Entry(names=_VARIABLES),
    "tensor.type": Entry(names=_TYPES),
    "tensor.sharedvar": Entry(
        names={
            **_from(C, "TensorSharedVariable SharedVariable"),
            "tensor_constructor": "tcc.sharedvar:shared",
        }
    ),
    "tensor.elemwise": Entry(
        ("tcc.tensor",),
        {
            **_from(O, "DimShuffle Sum Prod ProdWithoutZeros"),
            **_from(X, "Elemwise CAReduce CAReduceDtype"),
            "Any": f"{O}:AnyOp",
            "All": f"{O}:AllOp",
        },
    ),
    "tensor.extra_ops": Entry(
        ("tcc.tensor",),
        {
            **_from(
                O,
                "Bartlett CpuContiguous CumOp CumprodOp CumsumOp DiffOp FillDiagonal FillDiagonalOffset RavelMultiIndex RepeatOp "
                "SearchsortedOp Unique UnravelIndex",
            ),
            "cpu_contiguous": f"{L}:cpu_contiguous",
        },
    ),
    "tensor.fft": Entry(),
    "tensor.io": Entry(),
    "tensor.type_other": Entry(),
    "tensor.nlinalg": Entry(
        names=_from(O, "AllocDiag ExtractDiag")
        | _from(M, "Det Eig Eigh MatrixInverse MatrixPinv QRFull QRIncomplete SVD TensorInv TensorSolve")
        | {"lstsq": f"{M}:LeastSquares"}
    ),
    "tensor.slinalg": Entry(names=_from(M, "Expm")),
    "tensor.raw_random": Entry(names={**_STAR, "RandomFunction": "tcc.theano.drawops:RandomFunction"}),
    "tensor.shared_randomstreams": Entry(),
    "tensor.subtensor": Entry(
        ("tcc.tensor",),
        {
            **_from("tcc.indexing", "inc_subtensor set_subtensor take"),
            **_from("tcc.theano.slices", "get_canonical_form_slice"),
            **_INDEXING,
        },
    ),
    "tensor.sort": Entry(("tcc.tensor",), _from(O, "ArgSortOp SortOp TopKOp")),
    "tensor.opt": Entry(
        names={
            **_from(O, "Assert MakeVector Shape_i"),
            **_from(L, "assert_op make_vector"),
            **_from(G, "ShapeFeature"),
            "assert_": f"{L}:assert_op",
            **REGISTER,
            **_from(R, "local_optimizer in2out out2in"),
        },
    ),
    "tensor.inplace": Entry(
        names={
            **{f"{name}_inplace": f"tcc.theano.inplace:{name}_inplace" for name in ELEMENTWISE.split()},
            "transpose_inplace": "tcc.tensor:transpose",
        },
        doc="Theano's functions that overwrite their first operand.",
    ),
    "tensor.utils": Entry(names=_from(G, "shape_of_variables")),
    "tensor.xlogx": Entry(names=_from("tcc.elemwise", "xlogx xlogy0")),
    "tensor.nnet": Entry(names=_NNET),
    "tensor.nnet.nnet": Entry(("tcc.tensor.nnet",), _NNET),
    "tensor.nnet.sigm": Entry(("tcc.tensor.nnet",), _from(S, "ScalarSigmoid ScalarSoftplus")),
    "tensor.nnet.bn": Entry(
        names=_from(N, "AbstractBatchNormInference AbstractBatchNormTrain AbstractBatchNormTrainGrad")
    ),
    "tensor.nnet.conv": Entry(names={"imported_scipy_signal": "=True", **_from(N, "ConvOp")}),
    "tensor.nnet.corr": Entry(names=_from(N, "CorrMM CorrMM_gradInputs CorrMM_gradWeights")),
    "tensor.nnet.corr3d": Entry(names=_from(N, "Corr3dMM Corr3dMM_gradInputs Corr3dMM_gradWeights")),
    "tensor.nnet.abstract_conv": Entry(
        ("tcc.tensor.nnet.separable", "tcc.tensor.nnet.convshapes"), {"imported_scipy_signal": "=True"}
    ),
    "tensor.nnet.neighbours": Entry(names=_from(N, "Images2Neibs")),
    "tensor.nnet.ctc": Entry(),
    "tensor.nnet.blocksparse": Entry(names=_from(N, "SparseBlockGemv SparseBlockOuter")),
    "tensor.nnet.conv3d2d": Entry(),
    "tensor.signal": Entry(),
    "tensor.signal.conv": Entry(),
    "tensor.signal.pool": Entry(
        names=_from(N, "AveragePoolGrad DownsampleFactorMaxGradGrad MaxPoolGrad Pool")
    ),
    "tensor.signal.downsample": Entry(),
    "typed_list": Entry(),
    "typed_list.basic": Entry(("tcc.typed_list",)),
    "typed_list.type": Entry(("tcc.typed_list",)),
    "sparse": Entry(names={**_SPARSE, "basic": f"{L}:sparse_basic", "sharedvar": f"{L}:sparse_sharedvar"}),
    "sparse.basic": Entry(("tcc.sparse",), _SPARSE),
    "sparse.opt": Entry(names=_SPARSE_OPT),
    "sparse.sandbox": Entry(),
    "sparse.sandbox.sp2": Entry(
        names={
            **_from(
                "tcc.theano.sparsedraws",
                "Binomial Multinomial Poisson csc_dbinomial csc_fbinomial csr_dbinomial csr_fbinomial multinomial poisson",
            ),
            "EliminateZeros": f"{SP}:Remove0",
            "eliminate_zeros": "tcc.sparse:remove0",
            "sampling_dot": "tcc.sparse:sampling_dot",
        }
    ),
    "sparse.type": Entry(("tcc.sparse",)),
    "sparse.utils": Entry(names=_from(SP, "hash_from_sparse")),
    "sparse.sharedvar": Entry(("tcc.sparse",), {"sparse_constructor": "tcc.sparse:shared"}),
    # -- scalars --------------------------------------------------------------------------------------------------
    "scalar": Entry(names=_SCALARS),
    "scalar.basic": Entry(names=_SCALARS),
    "scalar.basic_scipy": Entry(names={**_SCALARS, "imported_scipy_special": "=True"}),
    # -- what is elsewhere or is not here -------------------------------------------------------------------------
    "sandbox": Entry(),
    "sandbox.rng_mrg": Entry(),
    "sandbox.linalg": Entry(),
    "sandbox.linalg.ops": Entry(
        ("tcc.tensor.nlinalg", "tcc.tensor.slinalg"),
        _from(L, "spectral_radius_bound") | {"imported_scipy": "=True"},
    ),
    "sandbox.multinomial": Entry(
        names={
            **_from("tcc.theano.drawops", "MultinomialFromUniform ChoiceFromUniform"),
            "MultinomialWOReplacementFromUniform": "tcc.theano.drawops:ChoiceFromUniform",
        }
    ),
    "sandbox.softsign": Entry(names=_from("tcc.tensor.nnet", "softsign")),
    "sandbox.neighbours": Entry(("tcc.tensor.nnet.neighbours",)),
    **GPU_TREE,
    "misc": Entry(),
    "misc.strutil": Entry(
        names={"render_string": f"{R}:render_string", "renderString": f"{R}:render_string"}
    ),
    "misc.safe_asarray": Entry(names=_from(L, "_asarray")),
    "misc.may_share_memory": Entry(names={"may_share_memory": "numpy:may_share_memory"}),
    "misc.pkl_utils": Entry(
        names=_from(
            "tcc.theano.pickling",
            "dump load StripPickler CompatUnpickler PersistentNdarrayID PersistentNdarrayLoad PersistentSharedVariableID",
        )
    ),
    "compat.python2x": Entry(names={"OrderedDict": "collections:OrderedDict"}),
    "compat.six": Entry((SIX,)),
    "compat.six.moves": Entry((SIX,)),
    "compat": Entry(
        names={
            **_from(SIX, "get_unbound_function b"),
            "PY3": "=True",
            "PY2": "=False",
            **_from(L, "izip imap cmp exc_message"),
            **_from("io", "BytesIO StringIO"),
            "OrderedDict": "collections:OrderedDict",
        }
    ),
    "tests": Entry(),
    "tests.breakpoint": Entry(names=_from("tcc.theano.breakpoint", "PdbBreakpoint")),
    "tests.unittest_tools": Entry(("tcc.theano.testing",)),
}

# Modules of Theano's compiler itself, for which nothing here stands.
INTERNAL = frozenset(
    "gof.callcache gof.cc gof.compiledir gof.cutils gof.destroyhandler "
    "gof.lazylinker_c gof.link gof.params_type gof.sched gof.toolbox gof.unify gof.vm "
    "gpuarray.elemwise gpuarray.fp16_help gpuarray.subtensor scalar.sharedvar scan_module.scan_opt "
    "scan_module.scan_perform_ext scan_module.scan_views tensor.blas tensor.blas_c tensor.blas_scipy tensor.nnet.opt "
    "tensor.opt_uncanonicalize".split()
)
