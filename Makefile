# What one does with a checkout. PYTHON names the interpreter, PIP_ARGS goes to pip (e.g. a CPU-only index).
.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-native test-torch211 bench lint format clean
export PYTHON PIP_ARGS

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo:  ## install, build and run the demo: a LeNet trained on real digits
	@tools/setup.sh demo
	@.venv/bin/pycv demo

test:  ## install, build and run the tests (about 5 minutes on two cores)
	@tools/setup.sh test
	@.venv/bin/python -m pytest -n 2

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

CXX_FILES = $(shell find csrc tests -name '*.cpp' -o -name '*.cc' -o -name '*.h')

clean:  ## remove everything that was built or downloaded
	rm -rf .venv .venv-torch211 build dist *.egg-info pycv/*.so runs
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
