#!/bin/sh
# build_pycuda.sh PYTHON: pycuda in PYTHON's environment, linked against an empty library in the driver's place.
# CUDA_HOME (/usr/local/cuda) has include/cuda.h; a C++ compiler is needed.
set -e
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC:-cc} -shared -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so" -x c /dev/null
"$python" -m pip download --quiet --no-deps --no-binary pycuda --dest "$work" pycuda
mkdir "$work/source"
tar xf "$work"/pycuda-*.tar.gz --strip-components 1 -C "$work/source"
cat > "$work/source/siteconf.py" <<EOF
CUDA_ROOT = "${CUDA_HOME:-/usr/local/cuda}"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$work"]
CUDADRV_LIBNAME = ["cuda"]
CXXFLAGS = ["-w", "-O1", "-g0"]
LDFLAGS = ["-L$work", "-Wl,--no-as-needed", "-lcuda", "-s"]
EOF
"$python" -m pip install --quiet "$work/source"
