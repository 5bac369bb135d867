"""One contender on one network, in a process of its own: ``python -m pycv.bench.network_worker``.

The process that asks (network.py) writes a line of JSON and reads one back, so that of several workers only one
computes at a time: first what to build (:class:`Job`), then commands. What libraries print goes to standard error.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import models, registry
from ..nn.patch import patch
from ..timing import Sampler
from .contenders import Unavailable

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
ENGINES = ("onnxruntime", "openvino")
CONTENDERS = {
    "pycv": "torch's layers, patched",
    "pycv@nhwc": "the same in channels_last",
    "torch:nchw": "torch's layers",
    "torch:nhwc": "the same in channels_last",
    "torch:compiled": "torch.compile of them",
    "onnxruntime": "ONNX Runtime, inference, where it is installed",
    "openvino": "OpenVINO, inference, where it is installed",
}
LAYER_RUNS = 5
SAMPLES_PER_TURN = 3
NOT_FINITE = "refused: what it computes is not finite"
REFERENCE = "reference"  # writes what the others are compared with, and the ONNX file of the engines


@dataclass(frozen=True)
class Job:
    """What a worker builds. ``folder`` holds what the reference leaves for the others."""

    model: str
    contender: str
    batch: int
    size: int | None
    train: bool
    threads: int
    seed: int
    folder: str
    onnx: bool = False


def unpatched(name: str) -> nn.Module:
    """A network of the zoo with torch.nn's layers, whose initialisation it keeps.

    Raises ValueError for a model that does not exist.
    """
    return on_torch_layers(models.create(name))


def on_torch_layers(model: nn.Module) -> nn.Module:
    """The same model, pycv's layers in it turned into those of torch.nn."""
    for module in model.modules():
        twin = next((base for base in type(module).__mro__ if base.__module__.startswith("torch.nn.modules")), None)
        if type(module).__module__.startswith("pycv.nn") and twin is not None:
            module.__class__ = twin
    return model


def images(job: Job, seed: int) -> Tensor:
    """Random images of the model's size, or of the one that was asked for."""
    channels, *size = models.image_shape(job.model)
    size = size if job.size is None else [job.size, job.size]
    return torch.randn(job.batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def _model(job: Job) -> nn.Module:
    """The same weights in every process."""
    torch.manual_seed(job.seed)
    return unpatched(job.model).train(job.train)


# ------------------------------------------------------------------------------------------------------ subjects


class _Network:
    """A torch module, as it is or patched, in a memory format, or compiled; training steps where the job says so."""

    def __init__(self, job: Job) -> None:
        who, _, how = job.contender.replace("@", ":").partition(":")
        self.job = job
        self.format = FORMATS.get(how, torch.contiguous_format)
        model = _model(job).to(memory_format=self.format)  # type: ignore[call-overload]
        if who == "pycv":
            patch(model)
        self.plain = self.model = model
        if how == "compiled":
            self.model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9) if job.train else None
        self.labels = torch.randint(0, 10, (job.batch,), generator=torch.Generator().manual_seed(job.seed))
        x = self._given(job.seed + 1)
        self.call: Callable[[], Any] = (lambda: self._step(x)) if job.train else (lambda: self._forward(x))
        try:
            self._gradients(x) if job.train else self.call()  # no step: the weights are still those of the reference
        except Exception as error:
            if how != "compiled":
                raise
            first = (str(error).splitlines() or [""])[0]  # no compiler on this machine, as a rule
            raise Unavailable(f"torch.compile: {type(error).__name__}: {first}") from None

    def _given(self, seed: int) -> Tensor:
        return images(self.job, seed).to(memory_format=self.format)

    def _forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(x)

    def _gradients(self, x: Tensor) -> list[Tensor]:
        self.model.zero_grad()
        _loss(self.model(x), self.labels).backward()
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def _step(self, x: Tensor) -> None:
        self._gradients(x)
        assert self.optimizer is not None
        self.optimizer.step()

    def error(self) -> float:
        """Of the output, or of the gradients (norm of the difference, worst parameter), as shares of the exact."""
        expected = torch.load(_reference(self.job), weights_only=True)
        if not self.job.train:
            return output_error(self._forward(self._given(self.job.seed + 2)), expected[0])
        fresh = _Network(self.job)  # the weights of this one have moved
        _without_dropout(fresh.plain)
        made = fresh._gradients(fresh._given(self.job.seed + 2))
        largest = max(wanted.norm() for wanted in expected)
        errors = [
            (a.double() - b).norm() / torch.maximum(b.norm(), 1e-3 * largest)
            for a, b in zip(made, expected, strict=True)
        ]
        return torch.stack(errors).max().item()  # of which NaN is the largest, unlike of Python's max

    def layers(self) -> list[dict[str, Any]] | None:
        """Of inference, for each layer its median seconds; None of what is compiled as a whole, and of training."""
        if self.job.train or self.model is not self.plain:
            return None
        x = self._given(self.job.seed + 1)
        runs = [_layer_times(self.plain, x) for _ in range(LAYER_RUNS)]
        return [one | {"seconds": median(run[i]["seconds"] for run in runs)} for i, one in enumerate(runs[0])]


def _layer_times(model: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """One run, watched by hooks around every module that has none within; the last row is what happened elsewhere."""
    rows: list[dict[str, Any]] = []
    begun: list[tuple[float, int]] = []

    def enter(*_: Any) -> None:
        begun.append((time.perf_counter(), len(log)))

    def leave(name: str, module: nn.Module) -> None:
        seconds, (start, calls) = time.perf_counter(), begun.pop()
        kernels = ", ".join(call.choice.kernel.name for call in log[calls:]) or "torch"
        rows.append({"layer": name, "op": type(module).__name__, "kernel": kernels, "seconds": seconds - start})

    with ExitStack() as hooks, registry.record() as log, torch.no_grad():
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hook = module.register_forward_hook(lambda module, *_, name=name: leave(name, module))
                hooks.callback(hook.remove)
        start = time.perf_counter()
        model(x)
        total = time.perf_counter() - start
    between = total - sum(row["seconds"] for row in rows)
    return [*rows, {"layer": "(between layers)", "op": "", "kernel": "torch", "seconds": between}]


def _without_dropout(model: nn.Module) -> None:
    """Which elements it drops depends on the dtype: gradients could not be compared."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _loss(output: Any, labels: Tensor) -> Tensor:
    """Auxiliary heads count like the main one: what matters is that they run."""
    outputs = output if isinstance(output, tuple) else (output,)
    return sum((cross_entropy(each, labels) for each in outputs if each is not None), torch.zeros(()))


class _Engine:
    """An inference engine on the ONNX file that the reference has written."""

    def __init__(self, job: Job) -> None:
        if job.train:
            raise Unavailable(f"{job.contender} does not train")
        try:
            self.module = importlib.import_module(job.contender)
        except ImportError:
            raise Unavailable(f"{job.contender} is not installed: pip install {job.contender}") from None
        path = Path(job.folder) / "model.onnx"
        if not path.exists():
            raise Unavailable("the network could not be exported to ONNX")
        self.job, self.path = job, path
        self.infer = self._onnxruntime() if job.contender == "onnxruntime" else self._openvino()
        x = images(job, job.seed + 1).numpy()
        self.call = lambda: self.infer(x)

    def _onnxruntime(self, profile: str = "") -> Callable[[Any], Any]:
        options = self.module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.job.threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between its turns
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        session = self.module.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.session, name = session, session.get_inputs()[0].name
        return lambda x: session.run(None, {name: x})[0]

    def _openvino(self) -> Callable[[Any], Any]:
        core = self.module.Core()
        wanted = {"INFERENCE_NUM_THREADS": self.job.threads, "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
        compiled = core.compile_model(core.read_model(str(self.path)), "CPU", wanted)
        return lambda x: compiled([x])[0]

    def error(self) -> float:
        (expected,) = torch.load(_reference(self.job), weights_only=True)
        return output_error(torch.as_tensor(self.infer(images(self.job, self.job.seed + 2).numpy())), expected)

    def layers(self) -> list[dict[str, Any]] | None:
        """By ONNX Runtime's own profile of one call, after fusion; None of OpenVINO."""
        if self.job.contender != "onnxruntime":
            return None
        with tempfile.TemporaryDirectory() as folder:
            infer, x = self._onnxruntime(str(Path(folder) / "profile")), images(self.job, self.job.seed + 1).numpy()
            for _ in range(2):
                infer(x)
            events = json.loads(Path(self.session.end_profiling()).read_text())
        nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
        last = nodes[len(nodes) // 2 :]
        return [
            {"layer": e["name"].removesuffix("_kernel_time"), "op": e["args"]["op_name"], "kernel": "onnxruntime",
             "seconds": e["dur"] / 1e6}
            for e in last
        ]  # fmt: skip


def output_error(made: Tensor, expected: Tensor) -> float:
    """max |made - expected| / max |expected| over the images that are judged, which ``expected`` has alone."""
    difference = (made[judged(len(made))].double() - expected).abs().max() / expected.abs().max()
    return float(difference) if difference.isfinite() else float("inf")


def judged(batch: int) -> list[int]:
    """Which images of a batch are compared with float64, which takes its time: the first and the last."""
    return sorted({0, batch - 1})


def _reference(job: Job) -> Path:
    return Path(job.folder) / "reference.pt"


def write_reference(job: Job) -> None:
    """In float64: the output of the images that are judged, or the gradients of all parameters; and, if asked for, the
    ONNX file."""
    model, x = _model(job), images(job, job.seed + 2)
    exact = copy.deepcopy(model).double()
    if job.train:
        labels = torch.randint(0, 10, (job.batch,), generator=torch.Generator().manual_seed(job.seed))
        _without_dropout(exact)
        _loss(exact(x.double()), labels).backward()
        found = [p.grad for p in exact.parameters() if p.grad is not None]
    else:
        with torch.no_grad():
            found = [exact(x[judged(job.batch)].double())]
    torch.save(found, _reference(job))
    if job.onnx:
        try:
            torch.onnx.export(model, (x,), str(Path(job.folder) / "model.onnx"), dynamo=True, verbose=False)
        except Exception as error:  # of the exporter or what it stands on: the engines say that there is no file
            print(f"{job.model}: no ONNX file: {error}", file=sys.stderr)
            (Path(job.folder) / "model.onnx").unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------- the process


def resident_peak() -> int:
    """Bytes of memory that this process has had resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Server:
    """What a process does: ``first`` is its answer to the job, :meth:`answer` that to a command."""

    def __init__(self, job: Job) -> None:
        self.first: dict[str, Any] = {"ready": True}
        self.base = resident_peak()
        if job.contender == REFERENCE:
            write_reference(job)
            return
        try:
            self.subject = _Engine(job) if job.contender in ENGINES else _Network(job)
        except Unavailable as reason:
            self.first = {"unavailable": str(reason)}
            return
        self.sampler = Sampler(job.contender, self.subject.call)
        self.sampler.warm_up(0.05)

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """``sample`` takes a few samples; ``finish`` says what was found."""
        precision = command["precision"]
        if command["do"] == "sample":
            self.subject.call()  # caches and clocks: the others had their turns
            for _ in range(SAMPLES_PER_TURN):
                self.sampler.sample()
            return {"settled": self.sampler.settled(precision)}
        peak = resident_peak()  # before what is not part of the work
        error = self.subject.error()
        if not math.isfinite(error):
            return {"unavailable": NOT_FINITE}
        return {
            "timing": asdict(self.sampler.result(precision)),
            "peak": peak,
            "base": self.base,
            "error": error,
            "layers": self.subject.layers(),
        }


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    job = Job(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(job.threads)
    server = Server(job)
    answer(server.first)
    for line in sys.stdin:
        answer(server.answer(json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
