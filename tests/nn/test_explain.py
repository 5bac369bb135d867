"""pycv.explain: every call with its layer, kernel and reason, torch's ops included and nothing counted twice."""

import math
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import pycv
from pycv import registry
from pycv.bench import gpu, machine
from pycv.problem import parse


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x, scale=1.0):
        x = self.act(self.norm(self.stem(x)))
        x = F.relu(x + self.body(x)).flatten(2).unflatten(2, (6, 6))
        return torch.softmax(self.head(self.pool(x).flatten(1)) * scale, 1)


class PassThrough(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


X = torch.randn(2, 3, 6, 6)


def _explained(patched=True, training=False, grad=False, **keywords):
    torch.manual_seed(0)
    model = Net().train(training)
    if patched:
        pycv.patch(model)
    with torch.set_grad_enabled(grad), pycv.use(backend="cpu"):
        expected = model(X, **keywords)
        explanation = pycv.explain(model, X, **keywords)
    if not training:
        torch.testing.assert_close(explanation.output, expected)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    return explanation


@pytest.mark.parametrize("grad", [False, True])
def test_rows_name_layer_and_kernel(grad):
    explanation = _explained(grad=grad)
    rows = [row for row in explanation.rows if row["op"] != "aten::clone"]  # what batch_norm saves for its backward
    ops = [(row["layer"], row["op"], row["kernel"].split(":")[0]) for row in rows]
    assert ops == [
        ("stem", "conv2d.forward", "cpu"),
        ("norm", "batch_norm.forward", "cpu"),
        ("act", "relu.forward", "cpu"),
        ("body.0", "aten::pad", "torch"),
        ("body.0", "conv2d.forward", "cpu"),
        ("body.1", "relu.forward", "cpu"),
        ("", "aten::add", "torch"),
        ("", "aten::relu", "torch"),
        ("pool", "adaptive_avg_pool2d.forward", "cpu"),
        ("head", "gemm.forward", "cpu"),
        ("", "aten::mul", "torch"),
        ("", "aten::softmax", "torch"),
    ]
    assert explanation.torch_layers() == [""]


def test_rows_tell_why_how_long_and_how_fast():
    explanation = _explained(scale=2.0)
    conv = explanation.rows[0]
    problem = parse(conv["problem"])
    assert (problem.op, problem.k, problem.size) == ("conv2d", 8, (6, 6))
    assert conv["reason"] and isinstance(conv["rejected"], list)
    assert conv["gflops"] == pytest.approx(problem.flops / conv["seconds"] / 1e9)
    assert 0 < conv["roofline"] < 1.5
    assert explanation.seconds == sum(row["seconds"] for row in explanation.rows)
    reasons = {row["op"]: row["reason"] for row in explanation.rows}
    assert "pycv.enable" in reasons["aten::relu"]
    assert reasons["aten::softmax"] == "pycv has no kernel for it"


def test_rejected_kernels_are_listed():
    with pycv.use(backend="cpu", algorithm={"conv2d.forward": "direct"}):
        conv = _explained().rows[0]
    assert conv["kernel"] == "cpu:direct"
    assert any("im2col" in text and "asked for" in text for text in conv["rejected"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "winograd/split-f4"}, r"cpu: cpu:winograd/split-f4: filter 3x3, stride 1x1[^;]*$"),
        ({"backend": "cuda"}, r"cuda:direct, cuda:wgmma, .*: device cpu: [^;]*; cuda:w"),
        ({"backend": "cpu", "algorithm": "mma_sync"}, r"none is all that was asked for \(.*'mma_sync', .*'cpu'\)$"),
    ],
)
def test_only_what_was_asked_for_says_why_it_cannot_run(settings, message):
    x, weight = torch.randn(1, 4, 7, 7), torch.randn(4, 4, 3, 3)
    with pycv.use(**settings), pytest.raises(pycv.UnsupportedError, match=message) as raised:
        pycv.functional.conv2d(x, weight)
    assert len(str(raised.value)) < 500


def test_an_unpatched_model_is_all_on_torch():
    explanation = _explained(patched=False)
    assert all(row["kernel"] == "torch:torch" for row in explanation.rows)
    assert explanation.torch_layers() == ["stem", "norm", "act", "body.0", "body.1", "", "pool", "head"]
    assert "pycv.patch" in explanation.rows[0]["reason"]
    assert explanation.rows[0]["gflops"] > 0


def test_training_counts_batches_without_leaving_pycv():
    explanation = _explained(training=True, grad=True)
    assert ("norm", "aten::add_") in [(row["layer"], row["op"]) for row in explanation.rows]
    assert explanation.torch_layers() == [""]


def test_functional_calls_reached_by_the_patch_are_pycvs():
    model = Net().eval()
    pycv.patch(model, functional=True)
    with torch.no_grad():
        explanation = pycv.explain(model, X)
    assert ("", "relu.forward") in [(row["layer"], row["op"]) for row in explanation.rows]
    assert "aten::relu" not in [row["op"] for row in explanation.rows]


def test_fallbacks_and_other_paths_are_told():
    layer = pycv.nn.Conv2d(3, 4, 3)
    half = pycv.explain(layer.bfloat16(), X.bfloat16())
    assert half.torch_layers() == [""]
    assert any("bf16" in text for text in half.rows[0]["rejected"])
    layer.float()
    with pycv.use(backend="torch"):
        asked = pycv.explain(layer, X)
    assert asked.torch_layers() == [""] and asked.rows[0]["kernel"] == "torch:torch"
    with PassThrough():
        watched = pycv.explain(pycv.nn.ReLU(), X)
    assert watched.torch_layers() == [""] and "torch mode" in watched.rows[0]["reason"]


def test_views_have_no_row():
    class Views(nn.Sequential):
        def forward(self, x):
            return super().forward(
                x.mT.T.view(3, 13).unsqueeze(0)[0].detach().reshape(3, 1, 13).squeeze(1).contiguous()
            )

    rows = pycv.explain(Views(pycv.nn.Linear(13, 17)), torch.randn(3, 13)).rows
    assert [row["op"] for row in rows] == ["gemm.forward"]


def test_other_threads_do_not_get_in_between():
    model = Net().eval()
    pycv.patch(model)
    stop = threading.Event()

    def elsewhere():
        while not stop.is_set():
            pycv.functional.relu(X)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        with torch.no_grad():
            rows = pycv.explain(model, X).rows
    finally:
        stop.set()
        thread.join()
    assert [row["op"] for row in rows if row["layer"] == "act"] == ["relu.forward"]
    assert rows[0]["problem"].startswith("conv2d.forward n2c3h6w6")


def test_the_table_shows_every_row():
    explanation = _explained()
    lines = str(explanation).splitlines()
    assert len(lines) == len(explanation.rows) + 2
    assert lines[0].split()[:3] == ["layer", "op", "kernel"] and lines[1].startswith("stem")
    assert "5 on torch" in lines[-1]
    assert "calls" in repr(explanation)


def test_errors_of_the_model_come_through_and_leave_nothing():
    model = Net()
    with pytest.raises(RuntimeError):
        pycv.explain(model, torch.randn(2, 4, 6, 6))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert pycv.registry.recorders == []
    assert pycv.explain(model, X).rows


def test_questions_about_dtypes_are_no_work_of_torchs():
    model = torch.nn.Sequential(pycv.nn.BatchNorm2d(3))
    ops = [row["op"] for row in pycv.explain(model.train(), torch.randn(2, 3, 4, 4)).rows]
    assert ops == ["aten::add_", "batch_norm.forward"]  # the first counts the batches


def test_wants_a_module():
    with pytest.raises(TypeError, match=r"model='function': expected a torch\.nn\.Module"):
        pycv.explain(F.relu, torch.randn(3))


def test_runs_on_a_gpu_are_timed_by_its_own_clock(monkeypatch):
    """Nothing waits for the device before the time is asked for; while a graph is captured it has none."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            self.number = len(log)
            log.append("made")

        def record(self):
            log.append("recorded")

        def synchronize(self):
            log.append("waited")

        def elapsed_time(self, end):
            return 4.0 * (end.number > self.number)  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    choice = SimpleNamespace(problem=parse("relu.forward e10 cuda"))
    capturing = False
    with registry.record() as calls, registry.timed(choice):
        log.append("launched")
    assert log == ["made", "made", "recorded", "launched", "recorded"]
    assert calls[0].seconds == 0.004 and log[-1] == "waited"
    capturing = True
    with registry.record() as calls, registry.timed(choice):
        pass
    assert 0 <= calls[0].seconds < 0.004 and len(log) == 6
    with registry.timed(choice):  # nobody records
        pass
    assert len(log) == 6


def test_another_profiler_keeps_what_it_has():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        torch.ones(3).sin()
        with pytest.raises(RuntimeError, match="another torch profiler is running"):
            pycv.explain(Net(), X)
    assert any(row.key == "aten::sin" for row in profiler.key_averages())


def test_a_gpu_has_its_own_roofline(monkeypatch):
    peaks = machine.Peaks(1, "", {"f32": 1e12}, (machine.Level("memory", math.inf, 1e11),), "Some GPU")
    monkeypatch.setattr(machine, "peaks", lambda: pytest.fail("the CPU's peaks are of no interest"))
    choice = SimpleNamespace(
        problem=parse("relu.forward e1000 cuda"), plan=None, kernel=SimpleNamespace(name="cuda:direct")
    )
    for known, share in ((peaks, 0.5), (None, None)):
        monkeypatch.setattr(gpu, "recorded", lambda known=known: known)
        assert sys.modules["pycv.explain"]._roofline_share(choice, 8000 / 1e11 * 2) == (share and pytest.approx(share))
