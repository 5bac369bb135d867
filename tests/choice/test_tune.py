"""`pycv tune`: a table out of few problems, what it is good for, and how it is shown and forgotten."""

import functools
import json
import os
import re

import pytest
import torch

import pycv
from pycv import cli, registry, tune
from pycv.choice import autotune, cache, device, model
from pycv.problem import parse

FEW = ["conv2d.forward n1c16h12w12 k16r3s3 p1", "conv2d.forward n2c8h20w20 k32r1s1", "gemm.forward m40n30k50",
       "max_pool2d.forward n1c16h20w20 r2s2 u2", "relu.forward e1000",
       "batch_norm.grad_input n2c8h9w9 training"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tune, "SECONDS", 0.001)
    model.forget()
    yield
    model.forget()


def test_a_machine_is_measured_recorded_and_used():
    seen = []
    before = torch.get_num_threads()
    tuning = tune.tune(threads=[1], chosen=[parse(text) for text in FEW], progress=lambda *now: seen.append(now))
    total = tune.PASSES * len(FEW)
    assert seen[0][:2] == (0, total) and seen[-1] == (total, total, "done")
    assert torch.get_num_threads() == before
    assert tuning.path == model.machine_file(device.current())
    recorded = json.loads(tuning.path.read_text())
    model.check(recorded)
    groups = recorded["threads"]["1"]
    for kernel in registry.kernels("conv2d", "forward"):
        if kernel.backend == "torch" or (kernel.backend != "numba" and kernel.supports(parse(FEW[0])) is None):
            assert any(name.startswith(f"conv.forward {kernel.name} ") for name in groups), kernel.name
    assert any(name.startswith("gemm.forward cpu:") and " kept " in name for name in groups)
    table = model.current()
    assert table.measured and "measured on this machine" in table.name
    with pycv.use(backend="cpu"):
        choice = registry.choose(parse(FEW[0]), pycv.settings.current(), 1)
    assert choice.basis == "predicted" and len(choice.estimates) >= 2
    assert "median error" in str(tuning) and str(tuning.path) in str(tuning)


def test_what_disturbs_one_pass_is_not_taken_for_the_speed_of_a_kernel(monkeypatch):
    problem, passes = parse("relu.forward e1000"), []

    def disturbed(problem, contenders, guesses, kept, budget):
        passes.append(budget)
        return {kernel.name: 1.0 if len(passes) == 1 else 1e-5 for kernel, _ in contenders}

    monkeypatch.setattr(autotune, "measure", disturbed)
    tuning = tune.tune(threads=[1], chosen=[problem])
    assert len(passes) == tune.PASSES
    assert all(one.worst_error < 0.1 for one in tuning.fits.values())


def test_a_part_can_be_measured_again():
    problems = [parse(text) for text in FEW]
    everything = tune.tune(threads=[1], chosen=problems).value["threads"]["1"]
    part = tune.tune("relu", threads=[1], chosen=problems)
    assert all(group.startswith("relu") for _, group in part.fits)
    assert set(part.value["threads"]["1"]) == set(everything)


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 1}', '{"schema": 99}'])
def test_a_corrupt_table_is_a_warning_and_the_shipped_one_holds(text):
    model.machine_file(device.current()).write_text(text)
    with pytest.warns(UserWarning, match="machine-.* is ignored"):
        assert model.current().name.startswith(("shipped", "none"))


def test_shipped_tables_are_good_and_cover_every_kernel_of_convolution():
    paths = sorted(model.TABLES.glob("*.json"))
    assert paths
    for path in paths:
        value = json.loads(path.read_text())
        model.check(value)
        assert value["device"]["isa"] == path.stem
        for group in value["threads"].values():
            assert any(name.startswith("conv.forward torch:torch ") for name in group)


def test_the_problems_are_the_same_every_time_and_reach_every_kernel():
    problems = tune.problems()
    assert problems == tune.problems() and len(problems) > 200
    for kernel in registry.kernels():
        planar = kernel.op.endswith(("conv2d", "pool2d", "gemm", "relu", "batch_norm"))
        if kernel.backend == "cpu" and planar:
            # An entry per numeric class may share a name, and what was measured of it.
            mine = [k for k in registry.kernels(kernel.op, kernel.pass_) if k.name == kernel.name]
            asked = [p for p in problems if (p.op, p.pass_) == (kernel.op, kernel.pass_)]
            assert any(k.supports(p) is None for k in mine for p in asked), kernel


def run(capsys, *arguments):
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_commands(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "problems", lambda: [parse(text) for text in FEW])
    code, out, _ = run(capsys, "tune", "machine", "--only", "relu", "--threads", "1")
    assert code == 0 and "relu.forward cpu:" in out
    cache.store("relu.forward e10 f32 cpu {}", cache.Entry("cpu:x", {"cpu:x": 1e-3, "torch:torch": 2e-3}))
    code, out, _ = run(capsys, "tune", "show")
    assert code == 0 and "measured on this machine" in out and "tuned choices: 1" in out
    assert "relu.forward e10 f32 cpu: cpu:x (cpu:x 1, torch:torch 2 ms)" in out
    assert "1 problems tuned" in str(pycv.info())
    code, out, _ = run(capsys, "tune", "clear")
    assert code == 0 and "choices-" in out and os.listdir(tmp_path)
    code, out, _ = run(capsys, "tune", "clear", "--machine")
    assert code == 0 and "machine-" in out
    assert run(capsys, "tune", "clear")[1] == "nothing was there\n"
    code, out, _ = run(capsys, "tune")
    assert code == 0 and "about a quarter of an hour" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bork"], "expected one of machine, model, set, show, clear"),
        (["machine", "--threads", "0"], "--threads 0"),
        (["machine", "--threads", "2,abc"], "--threads abc: expected a whole number"),
        (["model", "lenet5", "--size", "8", "--threads", "1"], "pycv: error: lenet5: "),
        (["machine", "--only", "bork"], "--only bork"),
        (["machine", "--only", "relu", "--threads", "1", "--output", "/dev/null/table.json"], "/dev/null: file exists"),
    ],
)
def test_bad_input(capsys, arguments, message):
    code, out, err = run(capsys, "tune", *arguments)
    assert code == 2 and message in err and not out


def test_info_says_where_the_constants_come_from(monkeypatch):
    assert pycv.info().cost_model == model.current().name
    monkeypatch.setattr(model, "_shipped", functools.cache(lambda isa: None))
    assert any("pycv tune machine" in problem for problem in pycv.info().problems)


def test_a_network_fills_the_choice_cache(monkeypatch, capsys):
    monkeypatch.setattr(autotune, "SECONDS", 0.001)
    assert cli.main(["tune", "model", "lenet5", "--layout", "nchw,nhwc", "--threads", "1"]) == 0
    tuned = [key.partition(" {")[0] for key in cache.entries()]
    for layout in ("nchw", "nhwc w=nhwc"):
        assert f"conv2d.forward n1c6h14w14 k16r5s5 f32 {layout} cpu bias" in tuned
    assert f"tuned {len(tuned)} choices" in capsys.readouterr().out
    with pycv.use(autotune=False), torch.no_grad(), registry.record() as log:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        pycv.models.create("lenet5").eval()(torch.randn(1, 1, 32, 32))
        torch.set_num_threads(threads)
    assert {call.choice.basis for call in log if call.choice.problem.op == "conv2d"} == {"measured"}
    found = tune.tune_model("lenet5", threads=1, train=True)
    assert any(key.startswith("conv2d.grad_weight n1c6h14w14") for key in found)


def test_a_set_fills_the_choice_cache(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(autotune, "SECONDS", 0.001)
    (tmp_path / "mine.txt").write_text("a: relu.forward e100\na: relu.forward e200\nb: channel_sum.forward n1c4h3w3\n")
    assert cli.main(["tune", "set", "--set", str(tmp_path / "mine.txt"), "--dtype", "float64"]) == 0
    tuned = {key.partition(" {")[0] for key in cache.entries()}
    assert tuned == {"relu.forward e100 f64 cpu", "relu.forward e200 f64 cpu"}
    assert "tuned 2 choices" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path / "file"))
    for arguments in (["set", "relu.forward e300"], ["model", "lenet5"]):
        assert cli.main(["tune", *arguments]) == 2
        assert re.search(r"\rpycv: error: the choice cache .*file.* cannot be written: ", capsys.readouterr().err)
    for arguments in (["model", "lenet9"], ["model", "lenet5", "--layout", "chwn"], ["set"]):
        assert cli.main(["tune", *arguments]) == 2
