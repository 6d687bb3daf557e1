# Needs make and Python >= 3.11 with venv; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# a process for each CPU, of 300 MB; neighbours stay together, because they share what a process has compiled
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: help setup check test test-exhaustive fuzz bench peers pycuda sanitize demo clean

help:
	@echo "make setup   a virtual environment in .venv with tcc and its developers' tools"
	@echo "make demo    trains two classifiers of handwritten digits"
	@echo "make check   format, lint, types and the fast tests"
	@echo "make test    the tests"
	@echo "make test-exhaustive   all tests, their code compiled as programs have it, then every float32 value through every vector function; takes two hours"
	@echo "make fuzz    bad bundles, manifests, weights and IR, found by coverage (atheris), SECONDS=60 for each reader"
	@echo "make bench   speed against whichever of NumPy, torch, JAX, PyTensor and ONNX Runtime are installed"
	@echo "make peers   installs those in .peers, for make bench"
	@echo "make pycuda  pycuda, also where there is no driver, for the tests of GPUs; takes CUDA's headers from CUDA_HOME"
	@echo "make sanitize  the GPU's kernels on DEVICE=cuda0, under compute-sanitizer"
	@echo "make clean   removes .venv, .peers and build"

setup: $(READY)

$(READY): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and "tcc needs Python >= 3.11, $(PYTHON) is " + v + ": make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv: install the package python3-venv of your system" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev,examples]'
	$(BIN)/python tools/link.py
	@touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m tcc.tools.typecheck
	$(PYTEST) -m 'not slow and not long'

test: setup
	$(PYTEST) -m 'not long'

test-exhaustive: setup
	$(PYTEST) --whole
	$(PYTEST) -rP tests/exhaustive/math_floats.py

SECONDS ?= 60
fuzz: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	for target in manifest size tensors npz npy text whole members; do \
	  $(BIN)/python tests/fuzz/files.py $$target build/fuzz/$$target -max_total_time=$(SECONDS) \
	    -artifact_prefix=build/fuzz/$$target- || exit 1; done

bench: setup
	$(BIN)/python -m benchmarks

peers:
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --disable-pip-version-check torch jax pytensor onnx onnxruntime

pycuda: setup
	sh tests/helpers/build_pycuda.sh $(BIN)/python

DEVICE ?= cuda0
KERNELS := $(addprefix tests/gpu/test_,table.py products.py hopper.py lines.py memory.py models.py)
sanitize: setup
	for tool in memcheck racecheck; do \
	  TCC_TEST_DEVICE=$(DEVICE) TCC_FLAGS=gpuarray.preallocate=-1 compute-sanitizer --tool $$tool --error-exitcode 9 \
	    $(BIN)/python -m pytest -q -x $(KERNELS) || exit; done

demo: setup
	$(BIN)/python examples/digits.py

clean:
	rm -rf .venv .peers build
