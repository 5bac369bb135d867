# What one does with a checkout. PYTHON names the interpreter, PIP_ARGS goes to pip (e.g. a CPU-only index).
.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-native test-isa test-cuda test-numba test-triton test-torch211 bench lint format clean
export PYTHON PIP_ARGS
# Every process would compile all of torch again: the virtual environment keeps byte code from the first import on.
unexport PYTHONDONTWRITEBYTECODE

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo:  ## install, build and run the demo: a LeNet trained on real digits
	@tools/setup.sh demo
	@.venv/bin/pycv demo

test:  ## install, build and run the tests, less those of make test-cuda (6 minutes on two cores, the first time)
	@tools/setup.sh test
	@$(PYTEST) $(OF_CUDA:%=--ignore=%)

test-full: test test-native test-isa test-cuda test-numba test-triton test-torch211  ## everything, however long (about two hours)
	@$(PYTEST) -m full --ignore=tests/ops --ignore=tests/triton
	@.venv/bin/python -m tests.mutants
	@.venv/bin/python -m tests.fuzz --n 20000

test-native:  ## the C++ kernels alone: as built, under sanitizers, and on aarch64 under qemu-user
	@tools/setup.sh test
	@.venv/bin/python -m tests.native
	@.venv/bin/python -m tests.native --sanitize
	@.venv/bin/python -m tests.native --target aarch64

test-isa:  ## the tests of the kernels and ops with each instruction set of this machine forced in turn
	@tools/setup.sh test
	@for isa in $$(.venv/bin/python -c 'from tools import native; print(*[i.name for i in native.runnable()])'); do \
	    echo "== PYCV_CPU_ISA=$$isa"; export PYCV_CPU_ISA=$$isa; \
	    $(PYTEST) tests/cpu tests/nn && $(PYTEST) -m "full or not full" tests/ops || exit 1; done

test-cuda:  ## tests of the CUDA kernels, which the CPU executes; ops and models on them; a stand-in for a GPU; races, addresses
	@tools/setup.sh test
	@$(PYTEST) $(OF_CUDA)
	@PYCV_CUDA_HOST=1 $(PYTEST) tests/ops
	@PYCV_CUDA_HOST=1 $(PYTEST) $(MODELS)
	@PYCV_TEST_DEVICE=standin $(PYTEST) tests/ops tests/cuda
	@.venv/bin/python -m tests.simt races $(HAZARDS) -m "full or not full"
	@.venv/bin/python -m tests.simt addresses $(HAZARDS) -m "full or not full"

test-numba:  ## the op tests on the Numba kernels, every model, and the fuzzer
	@tools/setup.sh test
	@PYCV_TEST_BACKEND=numba $(PYTEST) tests/ops tests/concurrency
	@PYCV_TEST_BACKEND=numba $(PYTEST) $(MODELS)
	@PYCV_TEST_BACKEND=numba .venv/bin/python -m tests.fuzz --n 5000

test-triton:  ## the op tests on the Triton kernels, in its interpreter, every model, the fuzzer, all that it compiles
	@tools/setup.sh test
	@$(INTERPRETED) $(PYTEST) tests/ops
	@$(INTERPRETED) $(PYTEST) $(MODELS)
	@$(INTERPRETED) .venv/bin/python -m tests.fuzz --n 500
	@$(PYTEST) -m "full or not full" tests/triton

test-torch211: build/constraints-torch211.txt  ## the op tests at the oldest supported torch, and the rehearsal with nothing else
	@VENV=.venv-torch211 CONSTRAINTS=$< tools/setup.sh test
	@.venv-torch211/bin/python -m pytest -n 2 tests/ops tests/nn
	@$(or $(PYTHON),python3) -m venv --clear .venv-torch211-bare
	@.venv-torch211-bare/bin/pip install -q --no-compile --disable-pip-version-check -c $< $(PIP_ARGS) \
	    torch numpy pytest pybind11 setuptools
	@! .venv-torch211-bare/bin/python -c 'import hypothesis' 2>/dev/null
	@PYTHON=.venv-torch211-bare/bin/python benchmarks/gpu/check.sh --rehearse runs/gpu-rehearsal

# torch 2.11 excludes newer versions of setuptools and Triton.
build/constraints-torch211.txt: constraints.txt Makefile
	@mkdir -p build
	@sed 's/^torch==.*/torch==2.11.0/; s/^setuptools==.*/setuptools==81.0.0/; s/^triton==.*/triton==3.6.0/' $< > $@

PYTEST = .venv/bin/python -m pytest -n 2 --dist worksteal
# Its programs multiply small matrices by NumPy, whose threads would only wait for each other.
INTERPRETED = OMP_NUM_THREADS=1 TRITON_INTERPRET=1 PYCV_TEST_BACKEND=triton
# Compiling the kernels for host execution takes most of a minute.
OF_CUDA = tests/cuda tests/simt
# Of every CUDA kernel.
HAZARDS = -q tests/cuda/test_hazards.py::test_problem
# Forward and backward pass of every model, at reduced size, on the backend under test.
MODELS = tests/models/test_behaviour.py -k gradients -m "full or not full"

bench:  ## compare 20 ResNet and VGG layers with torch on this machine (under 2 minutes)
	@tools/setup.sh demo
	@.venv/bin/pycv bench

lint:  ## ruff, mypy and clang-format
	@tools/setup.sh lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $(CXX_FILES)

format:  ## rewrite every file as lint wants it
	@tools/setup.sh lint
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $(CXX_FILES)

CXX_FILES = $(shell find csrc tests -name '*.cpp' -o -name '*.cc' -o -name '*.cu' -o -name '*.h')

clean:  ## remove everything that was built or downloaded
	rm -rf .venv .venv-torch211 .venv-torch211-bare build dist *.egg-info pycv/*.so runs
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
