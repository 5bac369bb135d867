"""benchmarks/gpu/check.sh: what it says of the tools of CUDA that it finds or does not find."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "cat", "dirname", "mkdir", "tee", "timeout")


@pytest.fixture
def check(tmp_path):
    """Runs stages where PATH holds nothing of CUDA's; gives the exit status and the output."""
    (tmp_path / "tools").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name}")
        (tmp_path / "tools" / name).symlink_to(found)
    places = {"PATH": str(tmp_path / "tools"), "CUDA_HOME": str(tmp_path / "cuda"), "PYTHON": "/bin/false"}

    def run(*stages):
        command = [tmp_path / "tools/bash", ROOT / "benchmarks/gpu/check.sh", tmp_path / "out", *stages]
        done = subprocess.run(command, env=os.environ | places, capture_output=True, text=True, timeout=60)
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
