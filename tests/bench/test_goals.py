"""The goals benchmark: which problems belong to which class, what a row says, and what counts as reached."""

import json

import pytest
import torch

from benchmarks.cpu import __main__ as command
from benchmarks.cpu import networks
from benchmarks.cpu.classes import CLASSES, Conv, cases, layers
from pycv import registry
from pycv.bench import goals, machine
from pycv.bench.goals import Goal
from pycv.bench.problems import case
from pycv.problem import ConvProblem, parse

LEVELS = (machine.Level("L1", 1000, 50e9), machine.Level("memory", float("inf"), 10e9))
PEAKS = machine.Peaks(1, "avx2", {"f32": 100e9, "f64": 50e9}, LEVELS)


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    monkeypatch.setattr(goals.machine, "peaks", lambda: PEAKS)


def one_row(goal, text, seconds=0.02):
    (row,) = goals.run([(goal, case(text))], seconds)
    goals.document([row], [], 0)  # it follows the schema
    return row


def test_a_row_holds_what_was_measured():
    row = one_row(Goal("wide", 2.0, 3.0), "a: conv2d.forward n1c8h9w9 k16r3s3 p1")
    assert {"torch:nchw", "torch:nhwc", "cpu@nchw", "cpu@nhwc", "pycv@nchw", "pycv@nhwc"} == set(row["seconds"])
    seconds = row["seconds"]
    rival, own = (min(seconds[f"{who}nchw"], seconds[f"{who}nhwc"]) for who in ("torch:", "cpu@"))
    assert row["ratio"] == pytest.approx(rival / own)
    assert row["ratio_nchw"] == pytest.approx(seconds["torch:nchw"] / seconds["cpu@nchw"])
    assert row["gflops"] == pytest.approx(parse(row["problem"]).flops / own / 1e9)
    assert row["algorithm_gflops"] > 0 and row["floor"] > 0 and row["error"] < 1e-5
    assert all(name.startswith("cpu:") for who, name in row["kernels"].items() if who.startswith("cpu@"))
    assert not row["rotated"] and row["kept"]


PREPACKED = Goal("g", 1, 2, rivals="prepacked", rotated=True)
BOTH_PASSES = Goal("g", 1, 2, passes=("forward", "grad_input"))


@pytest.mark.parametrize(
    ("goal", "text", "rivals"),
    [
        (PREPACKED, "conv2d.forward n1c16h9w9 k16r3s3 p1", {"onednn:nchw", "onednn:nhwc"}),
        (Goal("g", 1, 2, rivals="product"), "gemm.forward m8n9k10", {"torch:nchw", "onednn:matmul", "numpy:matmul"}),
        (Goal("g", 1, 2, layout="nchw"), "max_pool2d.forward n1c4h9w9 r3s3 u2 indices", {"torch:nchw", "torch:nhwc"}),
        (BOTH_PASSES, "batch_norm.forward n2c4h5w5 training", {"torch:nchw", "torch:nhwc"}),
        (Goal("g", 1, 2), "conv2d.grad_weight n1c8h9w9 k8r3s3 p1", {"torch:nchw", "torch:nhwc"}),
        (Goal("g", 1, 2), "relu.forward e100", {"torch:nchw"}),
        (Goal("g", 1, 2), "conv2d.forward n1c8h9w9 k8r1s1 bias+relu", {"torch:nchw", "torch:nhwc"}),
    ],
)  # fmt: skip
def test_every_kind_of_goal(monkeypatch, goal, text, rivals):
    monkeypatch.setattr(goals, "MAX_COPIES", 3)
    row = one_row(goal, text)
    assert {name for name in row["seconds"] if "@" not in name} == rivals
    assert row["ratio"] > 0 and row["error"] < 1e-4 and row["verdict"] in ("aim", "must", "floor", "miss")


def test_rotated_weights_take_turns_and_are_prepared_once(monkeypatch):
    monkeypatch.setattr(goals, "MAX_COPIES", 3)
    seen = []
    original = goals.measure

    def spy(calls, seconds):
        results = [calls["cpu@nchw"]() for _ in range(6)]
        seen.extend(results)
        return original(calls, seconds)

    monkeypatch.setattr(goals, "measure", spy)
    one_row(Goal("g", 1, 2, rotated=True), "conv2d.forward n1c16h9w9 k16r3s3 p1")
    assert all(torch.equal(seen[0], each) for each in seen)  # the copies are equal; their memory is not
    goal, problem = Goal("g", 1, 2, rotated=True), parse("conv2d.forward n1c16h9w9 k16r3s3 p1")
    assert len(goals._data(goal, problem, 0)["weights"]) == 3


def test_a_contender_with_several_weights_uses_each_in_turn():
    from pycv.bench.contenders import contender
    from pycv.bench.data import random_data

    problem = parse("conv2d.forward n1c16h9w9 k16r3s3 p1")
    data = random_data(problem, 0)
    data["weights"] = torch.stack([data["weight"], 2 * data["weight"]])
    for name in ("cpu@nhwc", "torch:nchw", "onednn:nhwc"):
        with torch.no_grad():
            call = contender(name).prepare(problem, data)
            first, second, third = (call() for _ in range(3))
        torch.testing.assert_close(2 * min(first, second, key=torch.norm), max(first, second, key=torch.norm))
        torch.testing.assert_close(first, third)


def test_an_unkept_weight_is_prepared_each_time(monkeypatch):
    prepared = []
    goal = Goal("g", 1, 2, kept=False)
    call = goals._call(goal, lambda: prepared.append(torch.is_grad_enabled()))
    with torch.no_grad():
        call()
    assert prepared == [True]
    assert goals._call(Goal("g", 1, 2), call) is call


@pytest.mark.parametrize(
    ("ratio", "nchw", "floor", "expected"),
    [
        (3.0, 3.0, 0.1, "aim"), (2.8, 3.0, 0.1, "aim"), (2.7, 3.0, 0.1, "must"), (1.87, 3.0, 0.1, "must"),
        (1.8, 3.0, 0.1, "miss"), (1.8, 3.0, 0.93, "floor"), (3.0, 2.0, 0.1, "miss"), (None, None, None, "miss"),
    ],
)  # fmt: skip
def test_verdicts(ratio, nchw, floor, expected):
    row = {"ratio": ratio, "ratio_nchw": nchw, "floor": floor}
    assert goals.verdict(row, Goal("g", 2.0, 3.0, must_nchw=2.5)) == expected


def test_the_tables_show_losses_like_wins():
    row = one_row(Goal("wide", 1e9, 1e9), "a: conv2d.forward n1c8h9w9 k16r3s3 p1")
    row |= {"default_ratio": 0.5}
    text = goals.table([row])
    assert "wide: a" in text and "0.50!" in text
    assert "miss" in goals.summary([row]).splitlines()[-1]
    assert goals.table([row], markdown=True).startswith("| problem |")


def test_a_recording_is_shown_again(tmp_path, capsys):
    row = one_row(Goal("wide", 1e9, 1e9), "a: conv2d.forward n1c8h9w9 k16r3s3 p1")
    errors = goals.accuracy([case("conv2d.forward n1c8h9w9 k16r3s3 p1")])
    recorded = goals.document([row], errors, 7)
    goals.write(tmp_path / "goals.json", recorded)
    assert command.main(["--show", str(tmp_path / "goals.json"), "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip("\n") == goals.page(recorded, markdown=True)
    parts = (goals.summary([row], True), goals.table([row], True), goals.accuracy_table(errors, True), "seed 7")
    assert all(part.strip() in shown for part in parts)
    (tmp_path / "other.json").write_text("{}")
    assert command.main(["--show", str(tmp_path / "other.json")]) == 2
    assert "other.json" in capsys.readouterr().err


def test_a_network_is_a_row():
    """torch's contender runs torch's own layers, pycv's are patched; both are right."""
    goal = Goal("network", 1.0, 2.0)
    for measured in (networks.inference, networks.training):
        row = measured("resnet20", goal, batch=4, seconds=0.01, image=32)
        goals.document([row], [], 0)
        assert row["ratio"] > 0 and set(row["seconds"]) == set(networks.CONTENDERS)
        assert row["error"] < 0.1  # of small gradients a flipped ReLU moves much
        assert "resnet20" in goals.table([row])


def test_torchs_network_runs_on_torch():
    x = torch.randn(1, 3, 32, 32)
    for name, expected in (("torch:nchw", False), ("pycv@nchw", True)):
        model = networks.contender(networks.unpatched("resnet18").eval(), name)
        assert any(type(module).__module__.startswith("pycv.nn") for module in model.modules()) == expected
        with registry.record() as calls, torch.no_grad():
            model(x)
        assert bool(calls) == expected


def test_the_accuracy_table_has_every_kernel():
    rows = goals.accuracy([case("conv2d.forward n1c16h9w9 k16r3s3 p1")])
    assert {"torch:nchw", "cpu:im2col", "cpu:direct"} <= {row["kernel"] for row in rows}
    assert all(row["error"] < 1e-4 for row in rows)
    assert "cpu:im2col" in goals.accuracy_table(rows)


# ----------------------------------------------------------------------------------------------------- the classes


def test_every_convolution_of_the_networks_belongs_to_a_class():
    for layer in layers():
        if isinstance(layer.problem, ConvProblem):
            assert any(one.belongs(layer.problem) for one in CLASSES), layer


def test_what_is_drawn_belongs_and_follows_the_seed():
    for one in CLASSES:
        drawn = [c.problem for c in cases(one, [], 4, seed=1)]
        assert drawn == [c.problem for c in cases(one, [], 4, seed=1)]
        if one.draw is not None:
            assert len(drawn) == 4 and drawn != [c.problem for c in cases(one, [], 4, seed=2)]


def test_sizes_part_the_3x3_classes():
    bounds = [one.belongs for one in CLASSES[:3]]
    for size in (7, 8, 9, 10, 13, 14, 27, 28, 56, 224):
        problem = parse(f"conv2d.forward n1c64h{size}w{size} k64r3s3 p1")
        assert sum(belongs(problem) for belongs in bounds) == 1
    assert not Conv((3,)).belongs(parse("conv2d.forward n1c64h56w56 k64r3s3 p1 g64"))


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "layers", lambda: [case("a: relu.forward e100"), case("b: gemm.forward m8n8k8")])
    output = tmp_path / "deep" / "out.json"
    few = ["--class", "relu", "--class", "sgemm small", "--drawn", "0", "--seconds", "0.01"]
    assert command.main([*few, "--output", str(output)]) == 0
    assert "Recorded in" in capsys.readouterr().out
    assert [row["name"] for row in goals.read(output)["rows"]] == ["b b1", "a"]
    assert command.main(["--class", "nothing"]) == 2
    assert command.main(["--list"]) == 0 and "must" in capsys.readouterr().out
    output.write_text(json.dumps({"schema": 1}))
    with pytest.raises(ValueError, match="no recording of goals"):
        goals.read(output)
