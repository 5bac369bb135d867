"""The share of the roofline: an algorithm's own operations, the fewest bytes, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from pycv import bench, registry
from pycv.bench import machine, placing, roofline, runner
from pycv.problem import parse

LEVELS = (machine.Level("L1", 1e4, 50e9), machine.Level("memory", float("inf"), 10e9))
PEAKS = machine.Peaks(2, "avx2", {"f32": 100e9}, LEVELS)


def plan(multiply_adds):
    return SimpleNamespace(cost=SimpleNamespace(multiply_adds=multiply_adds))


def test_the_operations_are_the_algorithms_own():
    problem = parse("conv2d.forward n1c64h56w56 k64r3s3 p1")
    direct = roofline.place(problem, None, PEAKS)
    assert direct.flops == pytest.approx(problem.flops * (166 / 168) ** 2) and direct.bound == "compute"
    assert direct.seconds == pytest.approx(direct.flops / 100e9)
    fewer = roofline.place(problem, plan(problem.flops / 16), PEAKS)  # half of the multiply-adds / 4, per thread
    assert fewer.flops == pytest.approx(problem.flops / 4)
    assert fewer.share(2 * fewer.seconds) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text",
    [
        "conv2d.forward n1c2h9w7 k4r5s3 p2",
        "conv2d.forward n2c3h11w8 k2r3s4 u3 p3 d2",
        "conv1d.grad_weight n1c4w6 k3s11 p5",
        "conv2d.grad_input n1c2h5w5 k2r3s3",
    ],
)
def test_a_library_need_not_multiply_padding(text):
    p = parse(text)
    shape = (1, 1, *p.size), (1, 1, *p.filter)
    ones = (torch.ones(s, dtype=torch.float64) for s in shape)
    convolution = getattr(torch.nn.functional, p.op)
    products = convolution(*ones, stride=p.stride, padding=p.padding, dilation=p.dilation).sum().item()
    expected = 2 * p.n * p.k * p.c * products
    assert roofline.algorithm_flops(p, None, 2) == pytest.approx(expected, rel=1e-12)
    assert (expected == p.flops) == (not any(p.padding))


def test_the_bytes_are_the_fewest_and_their_level_that_of_all_tensors():
    placed = roofline.place(parse("relu.forward e1000"), None, PEAKS)
    assert placed.bound == "L1" and placed.seconds == pytest.approx(8000 / 50e9)
    placed = roofline.place(parse("relu.forward e100000"), None, PEAKS)
    assert placed.bound == "memory" and placed.seconds == pytest.approx(1e4 / 50e9 + 79e4 / 10e9)


@pytest.mark.parametrize(
    ("text", "unseen"),
    [
        ("conv2d.forward n2c3h8w8 k4r1s1 u2", 2 * 3 * (64 - 16)),
        ("conv2d.grad_weight n2c3h8w8 k4r1s1 u2", 2 * 3 * (64 - 16)),
        ("conv2d.grad_input n2c3h8w8 k4r1s1 u2", 0),
        ("conv2d.forward n2c3h8w8 k4r3s3 u2 p1", 0),
        ("max_pool2d.forward n1c2h9w9 r2s2 u3", 2 * (81 - 36)),
        ("adaptive_avg_pool2d.forward n1c2h9w9 o3", 0),
        ("gemm.forward m3n4k5", 0),
    ],
)
def test_what_no_window_sees_need_not_move(text, unseen):
    problem = parse(text)
    assert problem.bytes - roofline.fewest_bytes(problem) == 4 * unseen


def test_there_is_no_place_without_a_peak():
    assert roofline.place(parse("relu.forward e10 f16"), None, PEAKS) is None
    assert roofline.place(parse("relu.forward e10 cuda"), None, PEAKS) is None


def test_a_row_above_its_own_roofline_is_refused_after_the_peaks_were_measured_again(monkeypatch):
    slow = machine.Peaks(1, "avx2", {"f32": 1.0}, LEVELS)
    measured = []
    monkeypatch.setattr(runner.machine, "peaks", lambda: slow)
    monkeypatch.setattr(runner.machine, "remeasured", lambda: measured.append(1) or slow)
    rows = bench.run(["a: relu.forward e1000", "b: relu.forward e2000"], ["cpu:direct"], budget=0.1)
    assert len(measured) == 1
    for row in rows:
        assert row["seconds"] is None and row["gflops"] is None
        assert "refused" in row["unavailable"] and "of its own roofline (compute" in row["unavailable"]
    bench.report.validate(bench.report.document(rows))


def test_peaks_that_were_too_low_are_corrected(monkeypatch):
    low, right = (machine.Peaks(1, "avx2", {"f32": rate}, LEVELS) for rate in (1.0, 1e15))
    monkeypatch.setattr(runner.machine, "peaks", lambda: low)
    monkeypatch.setattr(runner.machine, "remeasured", lambda: right)
    (row,) = bench.run(["relu.forward e1000"], ["cpu:direct"], budget=0.1)
    assert row["seconds"] and row["roofline"] <= 1 + roofline.MARGIN and row["bound"] == "L1"


def test_the_default_set_has_a_problem_for_every_kernel():
    """But for channel_sum, which is a part of other functions and not one by itself."""
    placed = {
        (one.problem.op, one.problem.pass_, name) for one in bench.load(placing.SET) for name in placing.kernels(one)
    }
    every = {(k.op, k.pass_, k.name) for k in registry.kernels() if k.backend == "cpu" and k.op != "channel_sum"}
    assert every <= placed


def test_the_table_says_what_bounds_a_kernel():
    row = {
        "name": "a", "problem": "relu.forward e1000 f32 cpu", "contender": "cpu:direct", "threads": 1, "seconds": 1e-6,
        "noisy": False, "algorithm_flops": 1000.0, "bytes": 8000, "roofline": 0.16, "bound": "L1", "unavailable": None,
    }  # fmt: skip
    lines = placing.table([row, row | {"contender": "b", "seconds": None, "unavailable": "no"}]).splitlines()
    assert lines[2].split() == ["a", "cpu:direct", "0.001", "1.0", "8.0", "0.1", "16", "%", "L1"]
    assert lines[-1] == "b: no (a)"
