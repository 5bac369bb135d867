"""The pytest-benchmark suites and the networks on a GPU: that they run what the sets say."""

import json
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import __main__ as problems
from benchmarks.gpu import networks
from pycv import bench
from pycv.bench.problems import case
from tests.bench.compiler import Compiler
from tests.bench.test_run import synthetic

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


@pytest.fixture
def clock(monkeypatch):
    """Of both benchmarks; a measurement takes ten seconds."""
    clock = SimpleNamespace(now=0.0)
    for module in (networks, problems):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return clock


CASES = [case(f"{name}: relu.forward e10") for name in ("first", "second", "third")]


@pytest.mark.parametrize(("measurements", "shares"), [(4, [41 / 6] * 2 + [21 / 4] * 2), (6, [7.0] * 6)])
def test_problems_are_recorded_one_by_one_and_what_there_is_no_time_for_is_named(
    clock, monkeypatch, tmp_path, measurements, shares
):
    budgets = []

    def run(cases, contenders, budget, warm=False):
        budgets.append(budget)
        clock.now += 10
        return [synthetic(cases[0].name, name, 1e-3) for name in contenders]

    monkeypatch.setattr(bench, "run", run)
    problems.measure(CASES, ["torch:nchw"], 10.0 * measurements + 1, 7.0, tmp_path)
    assert budgets == pytest.approx(shares)
    names = [one.name for one in CASES]
    for file in ("cold.json", "warm.json"):
        assert [row["name"] for row in bench.read(tmp_path / file)["rows"]] == names[: measurements // 2]
    missing = [line for line in (tmp_path / "table.md").read_text().splitlines() if "no time" in line]
    assert missing == [f"- left out, no time: {name}" for name in names[measurements // 2 :]]


def test_problems_that_were_measured_before_a_failure_are_on_disk(monkeypatch, tmp_path):
    def run(cases, contenders, budget, warm=False):
        if cases[0].name == "second" and warm:
            raise RuntimeError("an illegal memory access was encountered")
        return [synthetic(cases[0].name, name, 1e-3) for name in contenders]

    monkeypatch.setattr(bench, "run", run)
    with pytest.raises(RuntimeError, match="illegal"):
        problems.measure(CASES, ["torch:nchw"], 100.0, 7.0, tmp_path)
    assert [row["name"] for row in bench.read(tmp_path / "cold.json")["rows"]] == ["first"]
    assert "- left out, no time: second\n" in (tmp_path / "table.md").read_text()


def test_networks_are_recorded_one_by_one_and_what_there_is_no_time_for_is_named(clock, monkeypatch, tmp_path):
    def measured(setting, wanted, seconds, most, left):
        clock.now += 10
        if setting.network == "d":
            raise RuntimeError("out of memory")
        return [row(setting, name, 1e-3, noisy=False, low=1e-3, high=1e-3) for name in wanted]

    monkeypatch.setattr(networks, "measured", measured)
    todo = [networks.Setting(name, "inference", "fp32", 1) for name in "abc"]
    networks.measure(todo, ["pycv"], 21.0, 7.0, tmp_path)
    recorded = json.loads((tmp_path / "networks.json").read_text())
    assert [one["network"] for one in recorded["rows"]] == ["a", "b"]
    assert (tmp_path / "networks.md").read_text().endswith("- left out, no time: c inference fp32 batch 1\n")
    with pytest.raises(RuntimeError, match="out of memory"):
        networks.measure([todo[2], networks.Setting("d", "inference", "fp32", 1)], ["pycv"], 100.0, 7.0, tmp_path)
    assert [one["network"] for one in json.loads((tmp_path / "networks.json").read_text())["rows"]] == ["c"]


def test_networks_that_there_is_no_time_to_compile_say_so(monkeypatch):
    asked = []

    def measure(calls, budget, flush, patience):
        asked.append((list(calls), budget, round(patience)))
        return {}, {"slow": "no time: a call takes 1 s"}

    monkeypatch.setattr(networks, "precision_of", lambda setting: nullcontext())
    monkeypatch.setattr(networks, "calls", lambda setting, wanted: (dict.fromkeys(wanted), {}))
    monkeypatch.setattr(networks.device, "measure", measure)
    setting = networks.Setting("a", "training", "fp32", 1)
    rows = networks.measured(setting, ["slow", "torch:compiled"], 5.0, 2.0, left=80.0)
    assert [one["unavailable"] for one in rows] == ["no time: a call takes 1 s", "no time to compile"]
    networks.measured(setting, ["slow", "torch:compiled"], 5.0, 2.0, left=100.0)
    assert asked == [(["slow"], 2.0, 80), (["slow", "torch:compiled"], 2.0, 100)]


def test_networks_are_compiled_however_many_came_before(monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    for width in range(1, 10):
        x = torch.randn(1, 3, 2, 2)
        networks._ready("torch:compiled", torch.nn.Conv2d(3, width, 1), x, torch.zeros(1), train=False)()
    assert compiler.runs == [2] * 9
