"""The report: well-formed, self-contained, escaped; curves, tables, pictures and timings say what the run did.

The HTML is read by the standard parser. How it looks was looked at in a browser, wide and narrow, which CI has not.
"""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pycv
from pycv.train.report import layer_timing, pictures, plots, recorded, words, write_report

CLASSES = ("<b>zero</b>", "one & only", '"two"')
RECIPE = """name = "tiny"  # </pre><img src="http://example.org/x.png">
batch_size = 4

[data]
name = "dots"

[augment]
size = 8

[model]
name = "tiny<net>"

[optim]
lr = 0.1
"""
SECTIONS = ["curves", "confusion", "misclassified", "filters", "timing", "classes", "recipe", "environment"]
VOID = {"meta", "img", "br", "rect", "path", "circle"}


class Page(HTMLParser):
    """A page that is well-formed: every tag is closed in turn. Keeps the text of each section, images and links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.images: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._section = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        assert len(found) == len(attributes) and not any(name.startswith("on") for name in found)
        self.tags.add(tag)
        self.images += [found["src"] or ""] if "src" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        if tag == "section":
            self._section = found["id"] or ""
            assert self._section not in self.sections
            self.sections[self._section] = ""
        if tag not in VOID - {"rect"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += data + " "


class Tiny(nn.Module):
    """A residual network with an activation in place and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x) + x)
        return self.head(self.dropout(x.mean((2, 3))))


def write_run(path: Path, loss: float = 1.0, recipe: str = RECIPE) -> Path:
    """A run of 12 steps in 3 epochs, resumed once, killed while it wrote a line."""
    path.mkdir()
    lines = []
    for step in range(1, 13):
        values = {"epoch": 1 + (step - 1) // 4, "step": step, "learning_rate": 0.1, "seconds": 2.0 * step}
        lines.append({"kind": "step", "loss": loss / step, "top1": step / 12, "images_per_second": 100.0} | values)
        if step % 4 == 0:
            lines.append({"kind": "validation", "loss": 2 * loss / step, "top1": 0.5 + (step >= 8) / 4} | values)
    lines.insert(3, lines[2] | {"loss": 99.0})  # what is overwritten by the step taken again
    lines.insert(5, lines[4])
    lines[3], lines[2] = lines[2], lines[3]
    lines[-1]["loss"] = 0.7  # as good as the one before, with more loss
    lines.append({"kind": "step", "epoch": 3, "step": 13, "loss": float("nan")})
    lines.append({"kind": "test", "epoch": 2, "step": 13, "loss": 0.5, "top1": 0.75, "top5": 1.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (path / "metrics.jsonl").write_text(text + '{"kind": "st')
    (path / "recipe.toml").write_text(recipe)
    (path / "environment.json").write_text(json.dumps({"torch": "2.x", "isas": ["avx2", "<avx512>"], "commit": None}))
    target = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    prediction = np.array([0, 1, 1, 1, 0, 2, 1, 2])
    probability = np.array([0.9, 0.6, 0.9, 0.9, 0.8, 0.9, 0.7, 0.9], np.float32)
    np.savez(
        path / "evaluation.npz",
        index=np.arange(8) + 100, target=target, prediction=prediction, probability=probability,
    )  # fmt: skip
    return path


def picture(index: int) -> np.ndarray:
    """A picture that its index can be read off."""
    return np.full((8, 8, 3), index, np.uint8)


def decoded(url: str) -> np.ndarray:
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = write_run(tmp_path_factory.mktemp("runs") / "tiny & <co>")
    torch.manual_seed(0)
    assert write_report(path, Tiny(), CLASSES, picture) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text())


def test_the_page_needs_nothing_else(run, page):
    assert list(page.sections) == SECTIONS
    assert page.links == [f"#{name}" for name in SECTIONS]
    assert not page.tags & {"script", "link", "iframe", "object", "b"} - {"b"}
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.images and all(decoded(url).size for url in page.images)
    text = (run / "report.html").read_text()
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    assert sorted(path.name for path in run.iterdir()) == [
        "environment.json", "evaluation.npz", "metrics.jsonl", "recipe.toml", "report.html"
    ]  # fmt: skip


def test_what_comes_from_outside_is_text(run, page):
    """The parser has seen no tag of theirs, and gives the texts back."""
    assert RECIPE.strip() in page.sections["recipe"]
    assert "<avx512>" in page.sections["environment"]
    for section in ("confusion", "misclassified", "classes"):
        assert all(name in page.sections[section] for name in CLASSES), section
    assert "tiny &amp; &lt;co&gt;" in (run / "report.html").read_text()
    assert "tiny&lt;net&gt; on dots" in (run / "report.html").read_text()


def test_the_figures_are_those_of_the_run(run, page):
    text = (run / "report.html").read_text()
    for figure, name in (("75.00 %", "test top-1"), ("100.00 %", "test top-5"), ("24 s", "training time")):
        assert f"<strong>{figure}</strong><span>{name}" in text
    assert "<strong>75.00 %</strong><span>best validation top-1: epoch 2" in text
    assert "5 of 8 samples are right (62.50 %)" in page.sections["confusion"]
    assert "3 of 8 samples are wrong." in page.sections["misclassified"]
    row = " ".join(page.sections["classes"].split('"two"')[1].split())
    assert row.startswith("4 50.00 % 100.00 % <b>zero</b> (1)")


def test_the_surest_mistakes_come_first(page):
    shown = [int(decoded(url).flat[0]) for url in page.images if decoded(url).shape == (8, 8, 3)]
    assert shown == [104, 106, 101]


def test_records_as_they_were_left(run):
    """The step that was taken again counts once, the last time; the torn line and what is not finite not at all."""
    found = recorded.read(run)
    steps, losses = found.series("step", "loss")
    assert steps == list(range(1, 13)) and losses == [1 / step for step in steps]
    assert found.best()["step"] == 8


def test_two_runs_share_their_charts(tmp_path):
    ours = write_run(tmp_path / "ours")
    theirs = write_run(tmp_path / "theirs", loss=1.5, recipe=RECIPE.replace("lr = 0.1", "lr = 0.2"))
    page = Page(write_report(ours, Tiny(), CLASSES, None, vs=theirs).read_text())
    assert list(page.sections) == [
        SECTIONS[0],
        "comparison",
        *(set_ for set_ in SECTIONS[1:] if set_ != "misclassified"),
    ]
    for name in ("ours, training", "theirs, training", "ours, validation", "theirs, validation"):
        assert page.sections["curves"].count(name) == 2
    comparison = " ".join(page.sections["comparison"].split())
    assert "differ by 0.077 in the median and by 0.5 at most" in comparison
    assert "optim.lr 0.1 0.2" in comparison and "batch_size" not in comparison


def test_a_run_with_nothing_but_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    page = Page(write_report(tmp_path, nn.Identity(), CLASSES, None).read_text())
    assert list(page.sections) == []


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no metrics\.jsonl"):
        write_report(tmp_path, Tiny(), CLASSES, None)


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = write_run(tmp_path / "run")
    (path / "report.html").write_text("old")
    with pytest.raises(ValueError, match=r"2 names, but evaluation\.npz has class 2"):
        write_report(path, Tiny(), CLASSES[:2], None)
    with pytest.raises(ValueError, match=r"float64 \(8, 8\), expected uint8"):
        write_report(path, Tiny(), CLASSES, lambda index: np.zeros((8, 8)))
    assert (path / "report.html").read_text() == "old"


def test_many_classes_are_a_picture(tmp_path):
    """Of 40 classes every one is taken for the next twice and is right once."""
    path = write_run(tmp_path / "run")
    target = np.arange(40).repeat(3)
    prediction = np.where(np.arange(120) % 3 == 0, target, (target + 1) % 40)
    np.savez(path / "evaluation.npz", index=target, target=target, prediction=prediction, probability=np.ones(120))
    names = [f"class {number}" for number in range(40)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 40))
    page = Page(write_report(path, model, names, None).read_text())
    assert "class 0 class 1 2 3" in " ".join(page.sections["confusion"].split())
    heat = decoded(page.images[0])
    assert heat.shape == (40, 40, 3)
    assert heat[5, 5, 2] > heat[5, 5, 0] and heat[5, 6, 0] > heat[5, 6, 2] and (heat[5, 7] == 255).all()
    assert "40 filters of 8×8, as colours" in page.sections["filters"]


# ----------------------------------------------------------------------------------------------------- pictures


def test_filters_show_the_weights():
    """Of one channel: the smallest weight is blue, zero white, the largest red; of three: the colour itself."""
    grey = nn.Conv2d(1, 1, (1, 3))
    grey.weight.data = torch.tensor([-2.0, 0.0, 2.0]).view(1, 1, 1, 3)
    sheet, caption = pictures.filters(nn.Sequential(grey), None)
    colours = [tuple(sheet[12, 1 + 12 + 24 * number]) for number in range(3)]
    assert colours == [(0x2F, 0x6D, 0xB3), (255, 255, 255), (0xC8, 0x35, 0x2B)]
    assert caption.startswith("0: 1 filters of 1×3, blue lowers")
    colour = nn.Conv2d(3, 200, 1)
    colour.weight.data = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).repeat(200, 1, 1, 1)
    sheet, caption = pictures.filters(nn.Sequential(colour), None)
    assert tuple(sheet[10, 10]) == (255, 128, 0)
    assert "the first 128 of 200 filters" in caption
    assert pictures.filters(nn.Sequential(nn.Linear(10, 3)), 8) is None


def test_samples_are_thumbnails():
    assert decoded(pictures.sample(np.zeros((5, 7, 1), np.uint8))).shape == (5, 7)
    assert decoded(pictures.sample(np.zeros((480, 640, 3), np.uint8))).shape == (120, 160, 3)


# -------------------------------------------------------------------------------------------------------- plots


def test_a_chart_puts_points_in_their_places():
    """From (0, 0), the lower left corner of the axes, to (10, 1), the upper right."""
    chart = plots.line_chart("<t>", [plots.Curve("a & b", [0, 5, 10], [0, 0.25, 1], "#123456")])
    left, right, top, bottom = plots.LEFT, plots.WIDTH - plots.RIGHT, plots.TOP, plots.HEIGHT - plots.BOTTOM
    middle = f"{(left + right) / 2:.1f} {bottom + 0.25 * (top - bottom):.1f}"
    assert f'd="M{left:.1f} {bottom:.1f}L{middle}L{right:.1f} {top:.1f}"' in chart
    assert "&lt;t&gt;" in chart and "a &amp; b" in chart
    Page(chart)


def test_charts_of_little_and_of_much():
    assert plots.line_chart("t", [plots.Curve("a", [], [], "red")]) == ""
    assert "<circle" in plots.line_chart("t", [plots.Curve("a", [3], [0.0], "red")])
    much = plots.line_chart("t", [plots.Curve("a", range(100_000), [1.0] * 100_000, "red")])
    assert len(much) < 20_000 and "nan" not in much
    two = plots.line_chart("t", [plots.Curve("a", [1, 2], [3.0, 4.5], "red")])
    steps = [line.split("<")[0] for line in two.split('text-anchor="middle" fill="#6b727c" font-size="12">')[1:]]
    assert steps == ["1", "2", "step"]  # there is no step between them
    assert [words.rate(rate) for rate in (3310.4, 10.2, 0.714, 0.0)] == ["3,310", "10", "0.71", "0"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.02), (-3, 7), (5, 5), (0, 0), (1, 123456), (0, 1e-9)])
def test_ticks_enclose_the_data(low, high):
    ticks = plots.ticks(low, high, 5)
    assert ticks[0] <= low <= high <= ticks[-1] and 3 <= len(ticks) <= 9
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_the_running_mean_is_one():
    assert plots.smoothed([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (42.4, "42 s"), (425, "7 min 05 s"), (11520, "3 h 12 min"), (183600, "2 d 03 h")],
)
def test_durations_in_words(seconds, text):
    assert words.duration(seconds) == text


# ------------------------------------------------------------------------------------------------------- timing


class Clock:
    """Time that passes in :class:`Slow` only."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(torch.autograd.Function):
    """2 seconds forward, 4 backward, by the clock that it is given."""

    @staticmethod
    def forward(ctx, x, clock):
        ctx.clock = clock
        clock.now += 2
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += 4
        return gradient, None


class Sleeper(nn.Module):
    def __init__(self, clock: Clock, inner: nn.Module) -> None:
        super().__init__()
        self.clock, self.inner = clock, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(Slow.apply(x, self.clock))


@pytest.mark.parametrize("inner", [nn.ReLU(inplace=True), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))])
def test_time_is_charged_to_the_layer_that_took_it(inner, monkeypatch):
    """To the innermost module, twice where it runs twice; not to what is around it, in it, before or behind it."""
    clock = Clock()
    monkeypatch.setattr(layer_timing, "time", clock)
    monkeypatch.setattr(Clock, "__deepcopy__", lambda self, memo: self, raising=False)
    sleeper = Sleeper(clock, inner)
    around = nn.Sequential(nn.ReLU(inplace=True), sleeper, nn.MaxPool2d(2), sleeper, nn.ReLU())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), around, nn.Flatten(), nn.Linear(36, 3))
    (slow,) = layer_timing.layer_costs(model, torch.randn(2, 3, 8, 8))
    assert (slow.kind, slow.layers, slow.inference, slow.forward, slow.backward) == ("Sleeper", 1, 4, 4, 8)


def test_timing_leaves_the_model_as_it_was():
    model = Tiny().requires_grad_(False).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    kinds = [
        cost.kind for cost in layer_timing.layer_costs(model, torch.randn(4, 3, 8, 8, generator=torch.Generator()))
    ]
    assert set(kinds) == {"Tiny", "Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Linear", "loss"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_kernels_of_a_training_step_are_named():
    """Two convolutions forward, both weights, and one input (the first is the pictures')."""
    torch.set_num_threads(1)
    model = Tiny()
    pycv.patch(model)
    with pycv.use(backend="cpu"):
        costs = {cost.kind: cost for cost in layer_timing.layer_costs(model, torch.randn(2, 3, 8, 8))}
    passes = [pass_ for (kernel, pass_), count in costs["Conv2d"].kernels.items() for _ in range(count)]
    assert {name.partition(":")[0] for name, _ in costs["Conv2d"].kernels} == {"cpu"}
    assert passes.count("grad_weight") >= 2 and passes.count("grad_input") == 1
