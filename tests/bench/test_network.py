"""Whole networks. By default the workers' code runs in this process; `full` starts the real ones."""

import json
import sys

import pytest

from pycv import cli
from pycv.bench import network, network_report, network_worker, recording


class Inside:
    """Stands in for a process: the same code, here."""

    def __init__(self, job):
        self.server = network_worker.Server(job)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def answer(self):
        return json.loads(json.dumps(self.server.first))

    def ask(self, **command):
        return json.loads(json.dumps(self.server.answer(command)))

    def close(self):
        pass


@pytest.fixture
def inside(monkeypatch):
    monkeypatch.setattr(network, "_Worker", Inside)


def test_inference_gives_a_row_per_batch_and_contender(inside, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    progress = []
    rows = network.run(
        "lenet5", (1, 3), ["pycv@nhwc", "torch:nchw", "openvino"], threads=1, budget=0.02,
        progress=lambda *now: progress.append(now),
    )  # fmt: skip
    assert [(row["batch"], row["contender"]) for row in rows] == [
        (batch, name) for batch in (1, 3) for name in ("pycv@nhwc", "torch:nchw", "openvino")
    ]
    for row in rows:
        if row["contender"] == "openvino":
            assert row["seconds"] is None and row["unavailable"] == "openvino is not installed: pip install openvino"
            continue
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["low"] <= row["seconds"] <= row["high"] and row["peak_bytes"] >= row["base_bytes"] > 1e7
        assert 0 < row["error"] < 1e-5
        assert {"c1", "s2", "c3", "output", "(between layers)"} <= {layer["layer"] for layer in row["layers"]}
    assert progress[0] == (0, 10, "lenet5, batch 1: float64") and progress[-1] == (10, 10, "lenet5, batch 3: done")
    text = network_report.table(rows)
    both = "lenet5 inference, batch 1, 32 px; lenet5 inference, batch 3, 32 px"
    assert text.splitlines()[-1] == f"openvino: openvino is not installed: pip install openvino ({both})"
    layers = network_report.layer_tables(rows).splitlines()
    assert layers[0] == "lenet5 inference, batch 1, 32 px" and layers[3].split()[0] == "c1"
    assert layers[1].split() == ["layer", "pycv@nhwc", "ms", "torch:nchw", "ms"]


def test_training_compares_gradients(inside):
    pycv, torch, engine = network.run(
        "lenet5", (2,), ["pycv", "torch:nhwc", "onnxruntime"], train=True, threads=1, budget=0.05
    )
    assert pycv["mode"] == "training" and 0 < pycv["error"] < 1e-4 and 0 < torch["error"] < 1e-4
    assert pycv["layers"] is None and engine["unavailable"] == "onnxruntime does not train"


def test_a_wrong_network_is_seen(inside, monkeypatch):
    monkeypatch.setattr(network_worker, "patch", lambda model: model.c1.weight.data.mul_(1.5))
    (row,) = network.run("lenet5", contenders=["pycv"], threads=1, budget=0.01)
    assert row["error"] > 1e-3


@pytest.mark.parametrize("train", [False, True])
def test_a_network_that_computes_no_numbers_has_no_time(inside, monkeypatch, train):
    """One output that is none, or in training one gradient, the last parameter's."""

    def broken(model):
        if train:
            model.output.bias.register_hook(lambda gradient: gradient * float("nan"))
        else:
            model.output.bias.data[3] = float("nan")

    monkeypatch.setattr(network_worker, "patch", broken)
    (row,) = network.run("lenet5", contenders=["pycv"], train=train, threads=1, budget=0.01)
    assert row["seconds"] is None and row["unavailable"] == "refused: what it computes is not finite"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet9"], "lenet5"),
        (["lenet5", "--batch", "0"], "--batch 0"),
        (["lenet5", "--contender", "tensorflow"], "'tensorflow': expected one of pycv, pycv@nhwc"),
        (["lenet5", "--threads", "0"], "--threads 0"),
        (["lenet5", "--size", "-1"], "--size -1"),
    ],
)
def test_bad_input_is_named_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(network, "_Worker", lambda job: pytest.fail("started"))
    assert cli.main(["bench", "model", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_and_records(inside, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "model", "lenet5", "--contender", "pycv", "--budget", "0.01", "--threads", "1", "--layers"]
    assert cli.main([*arguments, "--json", "a.json", "--csv", "a.csv", "--markdown", "a.md"]) == 0
    recorded = recording.read("a.json")
    assert recorded["kind"] == "networks" and recorded["rows"][0]["contender"] == "pycv"
    assert (tmp_path / "a.csv").read_text().startswith("model,batch,size,mode,device,precision,contender,")
    assert (tmp_path / "a.md").read_text().startswith("| network | contender |")
    out = capsys.readouterr().out
    assert "lenet5 inference" in out and "\nsum " in out
    assert cli.main([*arguments, "--json", "a.json"]) == 2


def test_several_networks_are_one_recording(inside, tmp_path, capsys):
    path = tmp_path / "a.json"
    arguments = ["--contender", "pycv", "--budget", "0.01", "--threads", "1", "--json", str(path)]
    assert cli.main(["bench", "model", "lenet5", "mlp", *arguments]) == 0
    assert [row["model"] for row in recording.read(path)["rows"]] == ["lenet5", "mlp"]
    assert cli.main(["bench", "model", "lenet5", "lenet9", *arguments]) == 2
    assert "lenet9" in capsys.readouterr().err


@pytest.mark.full
def test_real_processes_and_onnxruntime():
    rows = network.run("lenet5", (2,), ["pycv", "torch:nchw", "onnxruntime"], threads=1, budget=0.2)
    assert all(row["seconds"] and row["error"] < 1e-5 and row["layers"] for row in rows)


@pytest.mark.full
def test_a_process_that_dies_is_named():
    with pytest.raises(RuntimeError, match="the process of reference ended"):
        network.run("lenet5", contenders=["pycv"], size=8)
