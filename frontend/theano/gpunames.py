"""The table's part for Theano's GPU back ends and its graph optimiser."""

from __future__ import annotations

from tcc.theano.entries import Entry
from tcc.theano.entries import taken as _from

L = "tcc.theano.legacy"
O = "tcc.theano.ops"
N = "tcc.theano.netops"
D = "tcc.theano.dnnops"
GPU = "tcc.theano.gpuops"
R = "tcc.theano.rewrites"

# Names that register optimisations.
REWRITES = _from(
    R,
    "OpRemove OpSub PatternSub LocalOptGroup TopoOptimizer EquilibriumOptimizer SeqOptimizer Optimizer LocalOptimizer "
    "local_optimizer out2in in2out optdb",
)
REGISTER = {
    f"register_{what}": f"{R}:register"
    for what in "canonicalize specialize stabilize uncanonicalize useless specialize_device opt opt2 gpu_opt".split()
}
# Names of the two GPU back ends: `gpuarray`, and the older `sandbox.cuda`, which differ in signatures.
_GPU_BASIC = {
    **_from(
        GPU,
        "HostFromGpu GpuFromHost GpuToGpu GpuContiguous GpuAlloc GpuAllocEmpty gpu_contiguous host_from_gpu "
        "as_gpuarray_variable infer_context_name empty_like",
    ),
}
_GPU_BASIC |= {f"Gpu{name}": f"{O}:{name}" for name in "Eye Split Join Reshape Tri".split()}
_GPU_BASIC |= {"gpu_join": "tcc.tensor:join", "gpu_from_host": f"{GPU}:gpu_from_host"}
_CUDA_BASIC = {
    **_GPU_BASIC,
    "GpuAlloc": f"{GPU}:OldGpuAlloc",
    "GpuAllocEmpty": f"{GPU}:OldGpuAllocEmpty",
    **_from(GPU, "gpu_alloc gpu_alloc_empty"),
    **{n: f"{GPU}:as_gpuarray_variable" for n in ("as_cuda_ndarray_variable", "as_cuda_array")},
    **{f"{prefix}tensor{n}": f"tcc.tensor:ftensor{n}" for prefix in ("f", "") for n in (3, 4)},
    **_from("tcc.tensor", "fscalar fvector fmatrix frow fcol"),
}
_CUDA_TYPES = {
    **_from(GPU, "CudaNdarrayType CudaNdarray"),
    **{f"CudaNdarray{kind}": f"{GPU}:GpuVariable" for kind in ("Variable", "Constant", "SharedVariable")},
    "float32_shared_constructor": f"{GPU}:shared_constructor",
    "shared_constructor": f"{GPU}:shared_constructor",
}
_GPU_TYPES = {
    "GpuArrayType": f"{GPU}:GpuArrayType",
    **{f"GpuArray{kind}": f"{GPU}:GpuVariable" for kind in ("Variable", "Constant", "SharedVariable")},
    "gpuarray_shared_constructor": "tcc.sharedvar:shared",
}
_GPU_BLAS = {
    f"Gpu{name}": f"{N}:{name}"
    for rank in ("", "3d")
    for name in (f"Corr{rank}MM", f"Corr{rank}MM_gradInputs", f"Corr{rank}MM_gradWeights")
}
_DNN = _from(
    D,
    "dnn_present dnn_available dnn_conv dnn_conv3d dnn_gradweight dnn_gradweight3d dnn_gradinput dnn_gradinput3d dnn_pool "
    "dnn_batch_normalization_train dnn_batch_normalization_test GpuDnnConvDesc GpuDnnConv GpuDnnConvGradW GpuDnnConvGradI "
    "GpuDnnPool GpuDnnPoolDesc GpuDnnPoolGrad GpuDnnSoftmax GpuDnnSoftmaxGrad",
)
_OLD_DNN = {
    **_DNN,
    **{n: f"{D}:old_{n}" for n in ("dnn_conv", "dnn_conv3d", "dnn_gradweight", "dnn_gradinput")},
    **{n: f"{D}:Old{n}" for n in ("GpuDnnConvDesc", "GpuDnnSoftmax")},
}

GPU_TREE: dict[str, Entry] = {
    "sandbox.cuda": Entry(
        names={
            "cuda_available": "=False",  # nothing here reads or writes CudaNdarray, which is what programs mean by it
            "cuda_enabled": f"{GPU}:enabled",
            "use": f"{L}:use_gpu",
            "GpuOp": "tcc.user_op:Op",
            **_CUDA_TYPES,
            **_CUDA_BASIC,
            **_from(GPU, "unuse"),
        }
    ),
    "sandbox.cuda.basic_ops": Entry(names=_CUDA_BASIC),
    "sandbox.cuda.blas": Entry(names={**_GPU_BLAS, "GpuCorrMM": f"{D}:OldGpuCorrMM"}),
    "sandbox.cuda.blocksparse": Entry(
        names={"sparse_block_dot_SS": "tcc.tensor.nnet.blocksparse:sparse_block_dot"}
    ),
    "sandbox.cuda.cuda_ndarray": Entry(names=_CUDA_TYPES),
    "sandbox.cuda.cuda_ndarray.cuda_ndarray": Entry(names=_CUDA_TYPES),
    "sandbox.cuda.dnn": Entry(names=_OLD_DNN),
    "sandbox.cuda.nvcc_compiler": Entry(names={"rpath_defaults": f"{R}:rpath_defaults"}),
    "sandbox.cuda.opt": Entry(names=REGISTER),
    "sandbox.cuda.rng_curand": Entry(names={"CURAND_RandomStreams": "tcc.sandbox.rng_mrg:MRG_RandomStreams"}),
    "sandbox.cuda.type": Entry(names=_CUDA_TYPES),
    "sandbox.cuda.var": Entry(names=_CUDA_TYPES),
    "gpuarray": Entry(names={"pygpu_activated": f"{GPU}:enabled", "use": f"{L}:use_gpu", **_GPU_TYPES}),
    "gpuarray.basic_ops": Entry(names=_GPU_BASIC),
    "gpuarray.blas": Entry(names=_GPU_BLAS),
    "gpuarray.ctc": Entry(("tcc.tensor.nnet.ctc",), {"gpu_ctc": "tcc.tensor.nnet.ctc:ctc"}),
    "gpuarray.dnn": Entry(names=_DNN),
    "gpuarray.opt": Entry(names=REGISTER),
    "gpuarray.type": Entry(names=_GPU_TYPES),
    "sandbox.gpuarray": Entry(names={"pygpu_activated": f"{GPU}:enabled", **_GPU_TYPES}),
    "sandbox.gpuarray.basic_ops": Entry(names=_GPU_BASIC),
    "sandbox.gpuarray.dnn": Entry(names=_DNN),
}
