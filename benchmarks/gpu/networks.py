"""Whole networks on a GPU, against cuDNN and torch.compile: ``python -m benchmarks.gpu.networks --output FOLDER``.

AlexNet, VGG-16, ResNet-50 and MobileNet v2, inference and a training step, in fp32, TF32 and bf16, for 1, 32 and 256
images. Contenders: pycv as it chooses by itself (torch, where no kernel was verified), its CUDA kernels forced, torch
in nchw and nhwc with cuDNN's search on, and torch.compile. All of a network are timed in turns (pycv/bench/device.py).

What is most telling is measured first: the seconds that may be spent are shared out among what is left, and what they
no longer suffice for is named. networks.json and networks.md receive the rows, and are written after every setting; the
first is a recording as `pycv bench model` makes them, for `pycv bench report` and `compare`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pycv
from pycv import models
from pycv.bench import device, network_report, report
from pycv.bench.network_worker import FORMATS, NOT_FINITE, judged, output_error, unpatched
from pycv.bench.runner import MEASURED, Row
from pycv.cli.shared import progress_bar
from pycv.timing import Timing

NETWORKS = ("resnet50", "vgg16", "mobilenet_v2", "alexnet")
BATCHES = (32, 1, 256)
PRECISIONS = ("fp32", "bf16", "tf32")
MODES = ("inference", "training")
BACKENDS = ("cuda", "triton")  # forced, where `pycv` runs what is verified
CONTENDERS = ("pycv", "cuda", "torch:nchw", "torch:nhwc", "torch:compiled")
LEAST_SECONDS = 2.0  # below which a configuration is left out
COMPILE_SECONDS = 90.0  # torch.compile takes half a minute per network: not once fewer seconds remain


@dataclass(frozen=True)
class Setting:
    """One table row's worth: what is run, and how."""

    network: str
    mode: str
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"{self.network} {self.mode} {self.precision} batch {self.batch}"


def settings(networks: Sequence[str], batches: Sequence[int], precisions: Sequence[str]) -> list[Setting]:
    """All of them, the most telling first: every network at the first batch size and precision before the others."""
    found = itertools.product(batches, precisions, MODES, networks)
    return [Setting(network, mode, precision, batch) for batch, precision, mode, network in found]


@dataclass(frozen=True)
class Subject:
    """A contender that is ready: its call, on images of its own, and what memory that took. ``fresh`` are images that
    nothing is timed on, and float64's output for those of them that are judged; None for training."""

    call: Callable[[], Any]
    x: Tensor
    peak_bytes: int
    fresh: tuple[Tensor, Tensor] | None

    def error(self) -> float | None:
        """Of the output against float64; None where nothing is compared."""
        if self.fresh is None:
            return None
        images, expected = self.fresh
        self.x.copy_(images)
        return output_error(self.call(), expected)


def subjects(setting: Setting, wanted: Sequence[str]) -> tuple[dict[str, Subject], dict[str, str]]:
    """The contenders that can run, and why others cannot."""
    torch.manual_seed(0)
    train, dtype = setting.mode == "training", torch.bfloat16 if setting.precision == "bf16" else torch.float32
    original = unpatched(setting.network).train(train).to("cuda", dtype)
    shape = (setting.batch, *models.image_shape(setting.network))
    x, other = (torch.randn(shape).to("cuda", dtype) for _ in range(2))
    labels = torch.randint(0, 10, (setting.batch,)).to("cuda")
    fresh = None if train else (other, _exact(original, other[judged(setting.batch)]))
    found, reasons = {}, {}
    for name in wanted:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            call, images = _ready(name, copy.deepcopy(original), x, labels, train)
            found[name] = Subject(call, images, torch.cuda.max_memory_allocated() - before, fresh)
        except Exception as error:  # of one contender: an unsupported layer, memory, a compiler that is missing
            reasons[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return found, reasons


@torch.no_grad()
def _exact(network: nn.Module, x: Tensor) -> Tensor:
    with pycv.use(backend="torch"):
        return copy.deepcopy(network).double()(x.double())


def _ready(name: str, network: nn.Module, x: Tensor, labels: Tensor, train: bool) -> tuple[Callable[[], Any], Tensor]:
    """A contender's call, run once, and the images that it reads."""
    memory_format = FORMATS["nhwc" if name in ("torch:nhwc", "torch:compiled") else "nchw"]
    x = x.contiguous(memory_format=memory_format)
    call = _call(name, network.to(memory_format=memory_format), x, labels, train)
    if name != "torch:compiled":
        call()
        return call, x
    torch._dynamo.reset()  # all modules share one code object, and of one only eight variants are compiled
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        call()
    return call, x


def _call(name: str, network: nn.Module, x: Tensor, labels: Tensor, train: bool) -> Callable[[], Any]:
    if name in ("pycv", *BACKENDS):
        pycv.patch(network)
    if name == "torch:compiled":
        network = torch.compile(network, dynamic=False)
    chosen = {"backend": name} if name in BACKENDS else {}
    if not train:

        def infer() -> Tensor:
            with torch.no_grad(), pycv.use(**chosen):
                return network(x)

        return infer
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with pycv.use(**chosen):
            cross_entropy(network(x), labels).backward()
        optimizer.step()

    return step


def measured(setting: Setting, wanted: Sequence[str], seconds: float, most: float, left: float) -> list[Row]:
    """A row per contender (bench/network_report.py), in ``seconds``, of which at most ``most`` go to samples. What
    would take longer than the seconds ``left`` to all settings is left out."""
    start = time.perf_counter()
    hasty = {"torch:compiled": "no time to compile"} if left < COMPILE_SECONDS else {}
    with device.fair(tf32=setting.precision == "tf32"):
        found, reasons = subjects(setting, [name for name in wanted if name not in hasty])
        spent = time.perf_counter() - start
        timings, late = device.measure(
            {name: subject.call for name, subject in found.items()}, min(most, max(0.2, seconds - spent)),
            flush=False, patience=left - spent,
        )  # fmt: skip
        errors = {name: found[name].error() for name in timings}
    reasons |= hasty | late
    for name, error in errors.items():
        if error is not None and not math.isfinite(error):
            reasons[name] = NOT_FINITE
    return [
        _row(setting, name, reasons[name]) if name in reasons
        else _row(setting, name, None, timings[name], found[name].peak_bytes, errors[name])
        for name in wanted
    ]  # fmt: skip


def _row(
    setting: Setting, name: str, reason: str | None, timing: Timing | None = None, peak: int = 0, error: Any = None
) -> Row:
    return {
        "model": setting.network, "batch": setting.batch, "size": models.image_shape(setting.network)[1],
        "mode": setting.mode, "device": "cuda", "precision": setting.precision, "contender": name,
        "threads": torch.get_num_threads(),
        **{field: timing and getattr(timing, field) for field in MEASURED},
        "images_per_second": timing and setting.batch / timing.seconds,
        "peak_bytes": timing and peak, "base_bytes": timing and 0,
        "error": error, "layers": None, "unavailable": reason,
    }  # fmt: skip


def measure(todo: Sequence[Setting], wanted: Sequence[str], seconds: float, sampling: float, output: Path) -> None:
    """Measures the settings in turn, which share what is left of ``seconds``, each up to ``sampling``."""
    deadline = time.perf_counter() + seconds
    rows: list[Row] = []
    with progress_bar() as progress:
        for done, setting in enumerate(todo):
            record(output, rows, todo[done:])
            left = deadline - time.perf_counter()
            if left < LEAST_SECONDS:
                return
            progress(done, len(todo), str(setting))
            rows += measured(setting, wanted, left / (len(todo) - done), sampling, left)
            torch.cuda.empty_cache()
    record(output, rows, ())


def record(output: Path, rows: Sequence[Row], left_out: Sequence[Setting]) -> None:
    """Writes what has been measured so far, in the place of what was there before."""
    document = network_report.document(rows)
    report.replace(output / "networks.json", report.as_json(document))
    missing = "".join(f"- left out, no time: {setting}\n" for setting in left_out)
    report.replace(output / "networks.md", network_report.markdown(document) + missing)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.networks", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder; default: %(default)s")
    parser.add_argument("--network", default=",".join(NETWORKS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--batch", default=",".join(map(str, BATCHES)), metavar="SIZES", help="default: %(default)s")
    parser.add_argument("--precision", default=",".join(PRECISIONS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--contender", default=",".join(CONTENDERS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=420.0, help="for everything; default: %(default)s")
    parser.add_argument("--sampling", type=float, default=6.0, help="seconds of it per row; default: %(default)s")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu.networks: torch sees no GPU here")
    batches = [int(text) for text in options.batch.split(",")]
    todo = settings(options.network.split(","), batches, options.precision.split(","))
    measure(todo, options.contender.split(","), options.seconds, options.sampling, options.output)
    print((options.output / "networks.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
