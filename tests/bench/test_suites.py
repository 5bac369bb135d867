"""The pytest-benchmark suites and the networks on a GPU: that they run what the sets say."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import __main__ as problems
from benchmarks.gpu import explain, goals, networks
from benchmarks.gpu import tune as tune_cases
from benchmarks.gpu.goals import Goal
from pycv import bench
from pycv.bench import gpu, recording, report
from pycv.bench.problems import case
from pycv.timing import Timing
from tests.bench.compiler import Compiler
from tests.bench.test_run import synthetic

ROOT = Path(__file__).parents[2]


@pytest.mark.full
def test_the_suites_take_the_problem_sets(tmp_path):
    (tmp_path / "mine.txt").write_text("a: relu.forward e100\nb: conv2d.forward n1c4h8w8 k8r3s3 p1\n")
    options = ["--set", str(tmp_path / "mine.txt"), "--contender", "pycv,torch:nhwc", "--pass", "forward,grad_input"]
    options += ["--benchmark-max-time=0.01", "--benchmark-json", str(tmp_path / "out.json"), "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks/suites", *options]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # no worker of xdist
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert len(found) == 6 and "2 skipped" in done.stdout  # relu has no nhwc
    assert {one["extra_info"]["contender"] for one in found} == {"pycv", "torch:nhwc"}
    assert all(one["extra_info"]["error"] < 1e-5 for one in found)


def test_the_most_telling_networks_come_first_and_all_of_them_come():
    found = networks.settings(networks.NETWORKS, networks.BATCHES, networks.PRECISIONS)
    assert len(found) == len(set(found)) == 4 * 3 * 3 * 2
    assert {(one.batch, one.precision) for one in found[:8]} == {(32, "fp32")}


@pytest.fixture
def clock(monkeypatch):
    """Of both benchmarks; a measurement takes ten seconds."""
    clock = SimpleNamespace(now=0.0)
    for module in (networks, problems):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return clock


CASES = [case(f"{name}: relu.forward e10 cuda") for name in ("first", "second", "third")]


@pytest.mark.parametrize(("measurements", "shares"), [(4, [41 / 6] * 2 + [21 / 4] * 2), (6, [7.0] * 6)])
def test_problems_are_recorded_one_by_one_and_what_there_is_no_time_for_is_named(
    clock, monkeypatch, tmp_path, measurements, shares
):
    budgets = []

    def run(cases, contenders, budget, warm=False, tf32=False):
        budgets.append(budget)
        clock.now += 10
        return [synthetic(cases[0].name, name, 1e-3) for name in contenders]

    monkeypatch.setattr(bench, "run", run)
    left = problems.measure(CASES, ["torch:nchw"], 10.0 * measurements + 1, 7.0, tmp_path)
    assert left == CASES[measurements // 2 :]
    assert budgets == pytest.approx(shares)
    names = [one.name for one in CASES]
    for file in ("cold.json", "warm.json"):
        assert [row["name"] for row in bench.read(tmp_path / file)["rows"]] == names[: measurements // 2]
    missing = [line for line in (tmp_path / "table.md").read_text().splitlines() if "no time" in line]
    assert missing == [f"- left out, no time: {name}" for name in names[measurements // 2 :]]
    budgets.clear()  # another run into the same folder measures those alone
    assert problems.measure(CASES, ["torch:nchw"], 100.0, 7.0, tmp_path) == []
    assert len(budgets) == 2 * len(left) and "no time" not in (tmp_path / "table.md").read_text()
    assert [row["name"] for row in bench.read(tmp_path / "cold.json")["rows"]] == names


def test_problems_that_were_measured_before_a_failure_are_on_disk(monkeypatch, tmp_path):
    def run(cases, contenders, budget, warm=False, tf32=False):
        if cases[0].name == "second" and warm:
            raise RuntimeError("an illegal memory access was encountered")
        return [synthetic(cases[0].name, name, 1e-3) for name in contenders]

    monkeypatch.setattr(bench, "run", run)
    with pytest.raises(RuntimeError, match="illegal"):
        problems.measure(CASES, ["torch:nchw"], 100.0, 7.0, tmp_path)
    assert [row["name"] for row in bench.read(tmp_path / "cold.json")["rows"]] == ["first"]
    assert "- left out, no time: second\n" in (tmp_path / "table.md").read_text()


CONV = "conv2d.forward n2c64h9w9 k64r3s3 p1 {} nhwc w=nhwc cuda"


def conv_row(contender, seconds, name="conv_wide/a", dtype="f32", **changes):
    return synthetic(name, contender, seconds, problem=CONV.format(dtype), **changes)


def cells(text, name):
    """Of the lines of a table about a problem."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [line for line in lines if name in line]


def test_a_kernel_that_uses_tf32_is_not_shown_beside_torch_that_may_not():
    rows = [
        conv_row("cuda:mma_sync/tf32", 1e-6), conv_row("cuda:wgmma/tf32[64x64]", 1e-6),
        conv_row("triton:implicit_gemm/tf32", 1e-6), conv_row("cuda:mma_sync/3xtf32", 4e-6),
        conv_row("cuda:direct", 5e-6), conv_row("torch:nhwc", 8e-6), conv_row("torch:nchw", 1e-6),
    ]  # fmt: skip
    (line,) = cells(problems.table(rows, rows), "conv_wide/a")
    assert line[1] == "cuda:mma_sync/3xtf32" and line[4] == "torch:nhwc" and line[6] == "2.00"
    again = [row | {"name": "conv_wide/a tf32"} for row in rows]
    lines = cells(problems.table(again, again), "conv_wide/a tf32")
    assert {line[1] for line in lines} == {"cuda:mma_sync/tf32", "triton:implicit_gemm/tf32"}
    assert {line[6] for line in lines} == {"8.00"}
    assert not cells(problems.goal_table(again), "conv_wide/a tf32")


def test_who_is_measured_where_tf32_is_allowed(monkeypatch):
    for name in ("cuda.unusable", "cuda._before", "cuda._exactly", "triton._unusable"):
        monkeypatch.setattr(f"pycv.kernels.{name}", lambda *_: None)
    (plain, tf32), half = (
        list(problems.in_both_precisions([case(f"gemm_f32/a: gemm.forward m64n64k64 {dtype} cuda")]))
        for dtype in ("f32", "bf16")
    )
    assert tf32.name == "gemm_f32/a tf32" and [one.name for one in half] == ["gemm_f32/a"]
    named = {one.name: set(problems.contenders(one)) for one in (plain, tf32)}
    assert {"cuda:mma_sync/3xtf32", "cuda:simt_8_warp_tiled", "triton:tiled"} <= named[plain.name]
    assert {"cuda:mma_sync/tf32", "triton:tiled/tf32"} <= named[tf32.name]
    assert all(name.endswith("/tf32") == (one == tf32.name) for one, names in named.items() for name in names)
    assert "cuda:simt_1_naive" not in named[plain.name]
    assert "cuda:simt_1_naive" in problems.contenders(case("ladder/a: gemm.forward m64n64k64 f32 cuda"))
    allowed = {}

    def run(cases, contenders, budget, warm=False, tf32=False):
        allowed[cases[0].name] = tf32
        return [synthetic(cases[0].name, name, 1e-3, problem=str(cases[0].problem)) for name in contenders]

    monkeypatch.setattr(bench, "run", run)
    monkeypatch.setattr(problems, "record", lambda *_: None)
    problems.measure([plain], ["torch:nchw"], 100.0, 7.0, Path("nowhere"))
    assert allowed == {plain.name: False, tf32.name: True}


def test_triton_has_its_line_and_its_ratio_to_cuda():
    rows = [
        conv_row("cuda:mma_sync", 4e-6, dtype="bf16"), conv_row("triton:implicit_gemm", 5e-6, dtype="bf16"),
        conv_row("torch:nhwc", 8e-6, dtype="bf16"), conv_row("torch:triton-templates", 10e-6, dtype="bf16"),
        conv_row("torch:compiled", None, dtype="bf16", unavailable="torch.compile: x"),
    ]  # fmt: skip
    cuda, triton = cells(problems.table(rows, rows), "conv_wide/a")
    assert cuda[1] == "cuda:mma_sync" and cuda[7] == "-"
    assert triton[1] == "triton:implicit_gemm" and triton[7] == "0.80" and triton[6] == "1.60"
    found = [(line[1], line[3], line[4], line[7]) for line in cells(problems.goal_table(rows), "conv_wide/a")]
    assert found == [
        ("cuda", "0.90 torch", "2.00", "aim"), ("triton", "1.00 templates", "2.00", "must"),
        ("triton", "0.85 cuda", "0.80", "missed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "seconds", "share", "verdict"),
    [
        (Goal("pool", 2.0, "eager", 1.2, "compiled", share=0.9), {"eager": 4, "compiled": 2}, 0.95, "aim"),
        (Goal("pool", 2.0, "eager", 1.2, "compiled", share=0.9), {"eager": 4, "compiled": 2}, 0.85, "must"),
        (Goal("pool", 2.0, "eager", 1.2, "compiled", share=0.9), {"eager": 1.9, "compiled": 2}, 0.95, "missed"),
        (Goal("conv_1x1", 1.2, "eager", 1.05, "compiled"), {"eager": 1.3}, None, "must"),
        (Goal("conv_wide", 0.9, "torch", 1.05), {"torch": 0.89}, None, "missed"),
        (Goal("conv_wide", 0.9, "torch", 1.05), {}, None, "not measured"),
    ],
)
def test_verdicts_of_goals(goal, seconds, share, verdict):
    rivals = {name: {"seconds": value} for name, value in seconds.items()}
    assert goals.verdict(goal, {"seconds": 1.0, "roofline": share}, rivals.get) == verdict
    assert goals.verdict(goal, None, rivals.get) == "not measured"


def test_of_one_problem_goals_count_the_kernels_that_they_are_about():
    strict, three = (goal for goal in goals.GOALS if goal.class_ == "gemm_f32" and goal.backend == "cuda")
    assert strict.takes("cuda:simt_8_warp_tiled", "strict") and not strict.takes("cuda:mma_sync/3xtf32", "default")
    assert three.takes("cuda:mma_sync/3xtf32[64x64]", "default") and not three.takes("cuda:mma_sync/tf32", "fast")
    assert not strict.takes("triton:tiled", "strict")


@pytest.mark.parametrize("file", [problems.PROBLEMS, ROOT / "tests/standin/problems.txt"], ids=["all", "rehearsal"])
def test_every_goal_has_a_problem_and_every_problem_a_goal(file):
    names = [one.name for one in bench.load(file)]
    assert len(names) == len(set(names))
    wanted = {goal.class_ for goal in goals.GOALS}
    classes = {goals.class_of(name) for name in names} - set(goals.WITHOUT)
    unknown_to_the_standin = {"depthwise", "depthwise_grad"} if file != problems.PROBLEMS else set()
    assert classes == wanted - unknown_to_the_standin
    dense = {one.problem.dtype for one in bench.load(file) if goals.class_of(one.name) in goals.DENSE}
    assert dense == {"bf16", "f16"}


def test_reasons_are_one_short_line():
    rows = [synthetic("a", "torch:nchw", None, unavailable="aten::x is missing. " + "Known: CPU, CUDA.\n" * 99)]
    (line,) = cells(problems.table(rows, rows), "a")
    assert line[1].startswith("torch:nchw: aten::x is missing.") and len(line[1]) < 130


def test_networks_are_recorded_one_by_one_and_what_there_is_no_time_for_is_named(clock, monkeypatch, tmp_path):
    def measured(setting, wanted, seconds, most, left):
        clock.now += 10
        if setting.network == "zfnet":
            raise RuntimeError("out of memory")
        return [networks._row(setting, name, None, Timing(*[1e-3] * 5, 9, 0, False), 1000, 1e-6) for name in wanted]

    monkeypatch.setattr(networks, "measured", measured)
    monkeypatch.setattr(gpu, "name", lambda: "NVIDIA")
    monkeypatch.setattr(gpu, "state", lambda: "cool")
    todo = [networks.Setting(name, "inference", "fp32", 1) for name in ("lenet5", "vgg11", "alexnet")]
    networks.measure(todo, ["pycv"], 21.0, 7.0, tmp_path)
    recorded = recording.read(tmp_path / "networks.json")
    assert [one["model"] for one in recorded["rows"]] == ["lenet5", "vgg11"]
    text = (tmp_path / "networks.md").read_text()
    assert "| lenet5 inference, batch 1, 32 px, fp32 on cuda | pycv | 1 |" in text and "\nNVIDIA; cool; " in text
    assert text.endswith("- left out, no time: alexnet inference fp32 batch 1\n")
    with pytest.raises(RuntimeError, match="out of memory"):
        networks.measure([todo[2], networks.Setting("zfnet", "inference", "fp32", 1)], ["pycv"], 100.0, 7.0, tmp_path)
    assert [one["model"] for one in recording.read(tmp_path / "networks.json")["rows"]] == ["alexnet"]


def test_networks_that_there_is_no_time_to_compile_say_so(monkeypatch):
    asked = []

    def measure(calls, budget, flush, patience):
        asked.append((list(calls), budget, round(patience)))
        return {}, dict.fromkeys(calls, "no time: a call takes 1 s")

    monkeypatch.setattr(networks.device, "fair", lambda tf32: nullcontext())
    ready = networks.Subject(lambda: None, torch.zeros(0), 0, None)
    monkeypatch.setattr(networks, "subjects", lambda setting, wanted: (dict.fromkeys(wanted, ready), {}))
    monkeypatch.setattr(networks.device, "measure", measure)
    setting = networks.Setting("lenet5", "training", "fp32", 1)
    rows = networks.measured(setting, ["slow", "torch:compiled"], 5.0, 2.0, left=80.0)
    assert [one["unavailable"] for one in rows] == ["no time: a call takes 1 s", "no time to compile"]
    networks.measured(setting, ["slow", "torch:compiled"], 5.0, 2.0, left=100.0)
    assert asked == [(["slow"], 2.0, 80), (["slow", "torch:compiled"], 2.0, 100)]


def test_networks_that_compute_no_numbers_are_refused(monkeypatch):
    """The others are compared with float64, on images that they were not timed on."""
    x, fresh = torch.zeros(2, 1), torch.tensor([[2.0], [3.0]])
    found = {name: networks.Subject(lambda by=by: x / by, x, 7, (fresh, fresh.double())) for name, by in
             (("pycv", 1), ("cuda", 0.8), ("torch:nchw", 0))}  # fmt: skip
    times = dict.fromkeys(found, Timing(*[1e-3] * 5, 9, 0, False))
    monkeypatch.setattr(networks.device, "fair", lambda tf32: nullcontext())
    monkeypatch.setattr(networks, "subjects", lambda setting, wanted: (found, {}))
    monkeypatch.setattr(networks.device, "measure", lambda *_, **__: (times, {}))
    rows = networks.measured(networks.Setting("lenet5", "inference", "fp32", 2), list(found), 5.0, 2.0, left=80.0)
    assert [row["error"] for row in rows] == [0.0, pytest.approx(0.25), None]
    assert [row["unavailable"] for row in rows] == [None, None, "refused: what it computes is not finite"]
    assert [row["seconds"] for row in rows] == [1e-3, 1e-3, None] and rows[0]["peak_bytes"] == 7


def test_networks_are_compiled_however_many_came_before(monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    for width in range(1, 10):
        x = torch.randn(1, 3, 2, 2)
        call, _ = networks._ready("torch:compiled", torch.nn.Conv2d(3, width, 1), x, torch.zeros(1), train=False)
        call()
    assert compiler.runs == [2] * 9


PROFILED = """"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","multiply(float *)","Duration","us","4.5"
"""


@pytest.mark.parametrize(
    ("script", "status", "told", "kept"),
    [
        (f"cat >$log <<'END'\n==PROF== found\n{PROFILED}END", 0, "| multiply | 4.5 us | - |", 4),
        ("echo '==ERROR== ERR_NVGPUCTRPERM' >$log; exit 1", 1, "NVreg_RestrictProfilingToAdminUsers=0", 0),
        ("echo '==ERROR== no such section'; exit 3", 1, "ncu failed (3): ==ERROR== no such section", 0),
    ],
)
def test_both_sides_of_what_a_tenth_separates_are_profiled(script, status, told, kept, monkeypatch, tmp_path, capsys):
    rows = []
    for name, own, rival in (("pool/a", 1.0, 1.5), ("pool/b", 1.05, 1.0), ("wgrad/c", 3.0, 1.0)):
        rows += [
            conv_row("cuda:direct", own, name), conv_row("torch:nhwc", rival, name), conv_row("torch:nchw", 0.1, name),
        ]  # fmt: skip
    for name, answer in (("name", "NVIDIA"), ("state", "cool"), ("recorded", None)):
        monkeypatch.setattr(gpu, name, lambda answer=answer: answer)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/cold.json").write_text(json.dumps(report.document(rows)))
    ncu = tmp_path / "fake"
    ncu.write_text(f'#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\nlog=$2\n{script}\n')
    ncu.chmod(0o755)
    places = ["--bench", str(tmp_path / "bench"), "--output", str(tmp_path / "ncu"), "--ncu", str(ncu)]
    monkeypatch.setattr(sys, "argv", ["explain", *places])
    assert explain.main() == status and told in capsys.readouterr().out
    names = [one.file for one in explain.subjects(rows)]
    assert names[:2] == ["wgrad_c.cuda_direct.csv", "wgrad_c.torch_nhwc.csv"] and len(names) == 4
    assert len(list((tmp_path / "ncu").glob("*.csv"))) == kept


def test_every_backend_is_tuned_and_what_there_is_no_time_for_is_named(monkeypatch):
    chosen = []
    monkeypatch.setattr(tune_cases.registry, "choose", lambda *asked: chosen.append(asked[0]))
    now = iter(range(99))
    monkeypatch.setattr(tune_cases, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    assert tune_cases.fill(CASES, 1.5) == CASES[1:]
    assert chosen == [CASES[0].problem] * 6  # three backends, the weight kept or not
