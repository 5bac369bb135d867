"""benchmarks/gpu/check.sh: what it says of the tools that it finds or does not find, and what it makes of its words."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "dirname", "env", "find", "mkdir", "rm", "sleep", "tee", "timeout")
# Answers what packages there are; what else it is to run it notes down, and fails unless the test says otherwise.
PYTHON = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then [[ $# == 2 || " $PACKAGES " == *" $3 "* ]]; exit; fi
echo "$PYCV_TEST_BACKEND: $*" >>"$NOTES"
for word in $PASSING; do [[ "$*" == *$word* ]] && exit 0; done
exit ${FAILURE:-1}
"""


@pytest.fixture
def check(tmp_path):
    """Runs stages where PATH holds nothing of CUDA's; gives the exit status and the output."""
    (tmp_path / "tools").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name}")
        (tmp_path / "tools" / name).symlink_to(found)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    places = {
        "PATH": str(tmp_path / "tools"), "CUDA_HOME": str(tmp_path / "cuda"), "PYTHON": str(tmp_path / "python"),
        "PACKAGES": "torch numpy pytest pybind11 setuptools", "NOTES": str(tmp_path / "notes"), "PASSING": "",
        "PYCV_TEST_BACKEND": "cuda",
    }  # fmt: skip

    def run(*stages, options=(), out=tmp_path / "out", **variables):
        folder = [out] if out else []
        command = [tmp_path / "tools/bash", ROOT / "benchmarks/gpu/check.sh", *options, *folder, *stages]
        done = subprocess.run(command, env=os.environ | places | variables, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_sanitizer_that_is_not_there_is_no_failure_and_nothing_is_verified_without(check, tmp_path):
    status, output = check("memcheck", "wrappers")
    assert status == 1 and "there is no compute-sanitizer" in output
    summary = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [line.partition(" s  ")[2] for line in summary] == ["not there", "FAILED (1)"]
    for stage in ("build", "wrappers", "kernels", "ops", "fuzz", "racecheck", "initcheck", "graphs"):
        (tmp_path / f"out/stages/{stage}.status").write_text("0\n")
    status, output = check("verified")
    assert status == 1 and "stage memcheck has not passed" in output


def test_the_sanitizer_of_cuda_home_is_found(check, tmp_path):
    (tmp_path / "cuda/bin").mkdir(parents=True)
    sanitizer = tmp_path / "cuda/bin/compute-sanitizer"
    sanitizer.write_text('#!/bin/sh\necho "sanitized by $2"\n')
    sanitizer.chmod(0o755)
    status, output = check("racecheck")
    assert status == 0 and "sanitized by racecheck" in output and "passed" in output


def words(tmp_path):
    """Of the summary: what became of each stage."""
    lines = (tmp_path / "out/summary.txt").read_text().splitlines()
    return {line.split()[0]: line.partition(" s  ")[2] for line in lines}


def test_a_mistyped_word_is_no_folder(check, tmp_path):
    for stages, out in ((["memchek"], None), (["memchek"], tmp_path / "out"), (["--memcheck"], None)):
        status, output = check(*stages, out=out)
        assert status == 2 and "memch" in output and not (tmp_path / "out").exists()
    status, output = check("memcheck", options=["--backend", "opencl"])
    assert status == 2 and "expected cuda or triton" in output


def test_packages_that_the_interpreter_lacks_are_named_before_anything_runs(check, tmp_path):
    status, output = check("ops", PACKAGES="numpy pytest setuptools")
    assert status == 2 and "lacks torch pybind11: PYTHON names another" in output and not (tmp_path / "out").exists()


def test_each_backend_has_its_stages(check, tmp_path):
    packages = "torch numpy pytest pybind11 setuptools triton"
    check("wrappers", "triton_kernels", PACKAGES=packages, PASSING="small")  # no nvcc here
    assert words(tmp_path) == {"triton_kernels": "passed"}
    check("wrappers", "triton_kernels", options=["--backend", "cuda"], PACKAGES=packages)
    assert words(tmp_path) == {"wrappers": "FAILED (1)"}
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/bin/nvcc").write_text("")
    (tmp_path / "cuda/bin/nvcc").chmod(0o755)
    _, output = check("wrappers", "triton_kernels", PACKAGES=packages, PASSING="small")
    assert words(tmp_path) == {"wrappers": "FAILED (1)", "triton_kernels": "passed"} and "backends: cuda tri" in output


def test_triton_is_verified_without_cuda(check, tmp_path):
    stages = ("build", "triton_kernels", "triton_ops", "triton_fuzz", "triton_graphs", "verified")
    status, _ = check(*stages, options=["--backend", "triton"], PASSING="pip setup.py pycv.cli small pytest fuzz")
    assert status == 0 and words(tmp_path) == dict.fromkeys(stages, "passed")
    notes = (tmp_path / "notes").read_text().splitlines()
    assert notes[-1] == f"triton: -m tests.cuda.small --verified {tmp_path / 'out/verified.json'}"
    status, output = check("triton_fuzz", "verified", options=["--backend", "triton"], PASSING="small")
    assert status == 1 and "triton: stage triton_fuzz has not passed" in output
    status, output = check("verified", options=["--backend", "cuda"], PASSING="small")
    assert status == 1 and "cuda: stage wrappers has not passed" in output


def test_a_file_that_fails_costs_the_others_nothing(check, tmp_path):
    status, _ = check("ops", PASSING="test_pool test_relu", options=["--backend", "cuda"])
    assert status == 1 and words(tmp_path) == {"ops": "FAILED (1)"}
    passed = {path.name for path in (tmp_path / "out/stages/ops").iterdir()}
    assert passed == {"test_pool.py.passed", "test_relu.py.passed"}
    files = len(list((ROOT / "tests/ops").glob("test_*.py")))
    assert len((tmp_path / "notes").read_text().splitlines()) == files


def test_what_is_unfinished_goes_on_and_what_has_failed_begins_again(check, tmp_path):
    passed, kept = tmp_path / "out/stages/ops/test_relu.py.passed", tmp_path / "out/bench/cold.json"
    for status, goes_on in (("75", True), ("124", True), ("1", False), ("0", False)):
        for file in (passed, kept):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        for stage in ("ops", "bench"):
            (tmp_path / f"out/stages/{stage}.status").write_text(status)
        _, output = check("ops", "bench", options=["--backend", "cuda"], PASSING="tests/ops", FAILURE="75")
        assert ("test_relu.py has passed" in output, kept.exists()) == (goes_on, goes_on)
        assert words(tmp_path) == {"ops": "passed", "bench": "unfinished: run it again, and it goes on"}


def test_an_ncu_that_is_not_there_is_said(check, tmp_path):
    status, output = check("ncu")
    assert status == 1 and "there is no ncu (Nsight Compute) in PATH" in output
    assert words(tmp_path) == {"ncu": "not there"}
