"""Whole networks on a GPU, against cuDNN and torch.compile: ``python -m benchmarks.gpu.networks --output FOLDER``.

AlexNet, VGG-16, ResNet-50 and MobileNet v2, inference and a training step, in fp32, TF32 and bf16, for 1, 32 and 256
images. Contenders: pycv as it chooses by itself (torch, where no kernel was verified), its CUDA kernels forced, torch
in nchw and nhwc with cuDNN's search on, and torch.compile. All of a network are timed in turns (pycv/bench/device.py).

What is most telling is measured first: the seconds that may be spent are shared out among what is left, and what they
no longer suffice for is named. networks.json and networks.md receive the rows, and are written after every setting.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import pycv
from pycv import models
from pycv.bench import device, machine, report
from pycv.bench.network_worker import FORMATS, unpatched
from pycv.cli.shared import progress_bar

NETWORKS = ("resnet50", "vgg16", "mobilenet_v2", "alexnet")
BATCHES = (32, 1, 256)
PRECISIONS = ("fp32", "bf16", "tf32")
MODES = ("inference", "training")
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


@contextmanager
def precision_of(setting: Setting) -> Iterator[None]:
    """TF32 in convolutions and products alike where it is asked for, nowhere else."""
    with device.fair():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = setting.precision == "tf32"
        yield


def calls(setting: Setting, wanted: Sequence[str]) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The call of each contender, and why others have none."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    original = unpatched(setting.network).train(setting.mode == "training").to("cuda", dtype)
    x = torch.randn(setting.batch, *models.image_shape(setting.network)).to("cuda", dtype)
    labels = torch.randint(0, 10, (setting.batch,)).to("cuda")
    found, reasons = {}, {}
    for name in wanted:
        try:
            found[name] = _ready(name, copy.deepcopy(original), x, labels, setting.mode == "training")
        except Exception as error:  # of one contender: an unsupported layer, memory, a compiler that is missing
            reasons[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return found, reasons


def _ready(name: str, network: nn.Module, x: Tensor, labels: Tensor, train: bool) -> Callable[[], Any]:
    """A contender's call, run once."""
    call = _call(name, network, x, labels, train)
    if name != "torch:compiled":
        call()
        return call
    torch._dynamo.reset()  # all modules share one code object, and of one only eight variants are compiled
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        call()
    return call


def _call(name: str, network: nn.Module, x: Tensor, labels: Tensor, train: bool) -> Callable[[], Any]:
    memory_format = FORMATS["nhwc" if name in ("torch:nhwc", "torch:compiled") else "nchw"]
    network, x = network.to(memory_format=memory_format), x.contiguous(memory_format=memory_format)
    if name in ("pycv", "cuda"):
        pycv.patch(network)
    if name == "torch:compiled":
        network = torch.compile(network, dynamic=False)
    chosen = {"backend": "cuda"} if name == "cuda" else {}
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


def measured(setting: Setting, wanted: Sequence[str], seconds: float, most: float, left: float) -> list[dict[str, Any]]:
    """A row per contender, in ``seconds``, of which at most ``most`` go to samples. What would take longer than the
    seconds ``left`` to all settings is left out. ``difference`` is the largest one to the output of torch:nchw, as a
    share of that (inference only)."""
    start = time.perf_counter()
    hasty = {"torch:compiled": "no time to compile"} if left < COMPILE_SECONDS else {}
    with precision_of(setting):
        found, reasons = calls(setting, [name for name in wanted if name not in hasty])
        spent = time.perf_counter() - start
        timings, late = device.measure(found, min(most, max(0.2, seconds - spent)), flush=False, patience=left - spent)
        outputs = {name: found[name]() for name in timings} if setting.mode == "inference" else {}
    reasons |= hasty | late
    rows = []
    for name in wanted:
        timing = timings.get(name)
        rows.append(
            {"network": setting.network, "mode": setting.mode, "precision": setting.precision, "batch": setting.batch,
             "contender": name, "seconds": timing and timing.seconds, "low": timing and timing.low,
             "high": timing and timing.high, "noisy": timing and timing.noisy,
             "difference": _difference(outputs, name), "unavailable": reasons.get(name)}
        )  # fmt: skip
    return rows


def _difference(outputs: dict[str, Tensor], name: str) -> float | None:
    if name not in outputs or "torch:nchw" not in outputs:
        return None
    expected = outputs["torch:nchw"].double()
    found = ((outputs[name].double() - expected).abs().max() / expected.abs().max()).item()
    return found if found == found and found != float("inf") else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown, a line per setting: milliseconds of each contender, pycv's best against the fastest of torch's."""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    lines: list[Sequence[str]] = [("network", *(f"{name} ms" for name in names), "ratio", "difference")]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        key = str(Setting(row["network"], row["mode"], row["precision"], row["batch"]))
        groups.setdefault(key, []).append(row)
    for key, group in groups.items():
        seconds = {row["contender"]: row["seconds"] for row in group if row["seconds"]}
        own = min((s for name, s in seconds.items() if not name.startswith("torch")), default=None)
        rival = min((s for name, s in seconds.items() if name.startswith("torch")), default=None)
        differences = [row["difference"] for row in group if row["difference"] is not None]
        lines.append((
            key, *(f"{1e3 * seconds[name]:.3g}" if name in seconds else "-" for name in names),
            f"{rival / own:.2f}" if own and rival else "-", f"{max(differences):.0e}" if differences else "-",
        ))  # fmt: skip
    reasons = dict.fromkeys(f"{row['contender']}: {row['unavailable']}" for row in rows if row["unavailable"])
    return "\n".join([report.markdown_table(lines), "", *(f"- {reason}" for reason in reasons)]) + "\n"


def measure(todo: Sequence[Setting], wanted: Sequence[str], seconds: float, sampling: float, output: Path) -> None:
    """Measures the settings in turn, which share what is left of ``seconds``, each up to ``sampling``."""
    deadline = time.perf_counter() + seconds
    rows: list[dict[str, Any]] = []
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


def record(output: Path, rows: Sequence[dict[str, Any]], left_out: Sequence[Setting]) -> None:
    """Writes what has been measured so far, in the place of what was there before."""
    document = {"schema": 1, "kind": "gpu networks", "machine": machine.describe(), "rows": rows}
    report.replace(output / "networks.json", report.as_json(document))
    missing = "".join(f"- left out, no time: {setting}\n" for setting in left_out)
    report.replace(output / "networks.md", table(rows) + missing)


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
