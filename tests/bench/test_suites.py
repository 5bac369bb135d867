"""The pytest-benchmark suites and the networks on a GPU: that they run what the sets say."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import networks
from tests.bench.compiler import Compiler

ROOT = Path(__file__).parents[2]


@pytest.mark.full
def test_the_suites_take_the_problem_sets(tmp_path):
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "mine.txt").write_text("a: relu.forward e100\nb: conv2d.forward n1c4h8w8 k8r3s3 p1\n")
    options = ["--set", str(tmp_path / "mine.txt"), "--contender", "pycv,torch:nhwc", "--pass", "forward,grad_input"]
    options += ["--benchmark-max-time=0.01", "--benchmark-json", str(tmp_path / "out.json"), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks/suites", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert len(found) == 6 and "2 skipped" in done.stdout  # relu has no nhwc
    assert {one["extra_info"]["contender"] for one in found} == {"pycv", "torch:nhwc"}
    assert all(one["extra_info"]["error"] < 1e-5 for one in found)


def row(setting, contender, seconds, **others):
    names = {"network": setting.network, "mode": setting.mode, "precision": setting.precision, "batch": setting.batch}
    return names | {"contender": contender, "seconds": seconds, "difference": None, "unavailable": None} | others


def test_the_most_telling_networks_come_first_and_all_of_them_come():
    found = networks.settings(networks.NETWORKS, networks.BATCHES, networks.PRECISIONS)
    assert len(found) == len(set(found)) == 4 * 3 * 3 * 2
    assert {(one.batch, one.precision) for one in found[:8]} == {(32, "fp32")}


def test_the_table_of_networks_takes_the_fastest_rival_and_names_what_failed():
    one = networks.Setting("vgg16", "inference", "bf16", 32)
    rows = [row(one, "pycv", 2e-3, difference=1e-3), row(one, "cuda", None, unavailable="no kernel")]
    rows += [row(one, "torch:nchw", 3e-3), row(one, "torch:compiled", 1e-3)]
    lines = networks.table(rows).splitlines()
    assert lines[2] == "| vgg16 inference bf16 batch 32 | 2 | - | 3 | 1 | 0.50 | 1e-03 |"
    assert lines[4] == "- cuda: no kernel"


def test_networks_are_compiled_however_many_came_before(monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    for width in range(1, 10):
        x = torch.randn(1, 3, 2, 2)
        networks._ready("torch:compiled", torch.nn.Conv2d(3, width, 1), x, torch.zeros(1), train=False)()
    assert compiler.runs == [2] * 9
