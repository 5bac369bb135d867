"""Whole networks: latency, images per second, memory and layers of every contender, each in a process of its own.

The processes take turns: a few samples of each, in rotating order, while the others wait for a line to read, so that
what disturbs one disturbs all. A turn begins with a call that does not count, after a pause in which the threads of the
last one have stopped to spin. Every process makes the same weights from one seed and is compared with float64 on images
that it has not been timed on. ``peak_bytes`` is the largest resident memory of the process, ``base_bytes`` that before
the network was built: Python, torch and pycv, which the engines of others would not need.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from .. import models
from ..timing import MAX_SAMPLES
from .network_worker import CONTENDERS, ENGINES, REFERENCE, Job
from .runner import MEASURED, Progress, Row

DEFAULT = ("pycv", "pycv@nhwc", "torch:nchw", "torch:nhwc")
PAUSE_SECONDS = 0.01
SECONDS = 10.0  # of sampling, per network and batch size, for all contenders


def run(
    model: str,
    batches: Sequence[int] = (1,),
    contenders: Iterable[str] = DEFAULT,
    *,
    train: bool = False,
    size: int | None = None,
    threads: int | None = None,
    budget: float = SECONDS,
    precision: float = 0.02,
    seed: int = 0,
    progress: Progress | None = None,
    rows: list[Row] | None = None,
) -> list[Row]:
    """Times a network of the zoo under every contender.

    Parameters
    ----------
    model : its name (:func:`pycv.models.list_models`).
    batches : numbers of images.
    contenders : out of :data:`network_worker.CONTENDERS`; one that is not installed is a row that says so.
    train : a step of training (forward, backward, SGD with momentum) instead of inference.
    size : height and width of the images; the model's own if None.
    threads : of each process; ``torch.get_num_threads()`` if None.
    budget : seconds of sampling for each batch size; building and checking come on top.
    precision : half the width of a median's 95 % confidence interval, as a share of it, at which sampling stops.
    rows : a list to add to, batch size by batch size, as of :func:`pycv.bench.run`; it is what is returned.

    Returns
    -------
    One dict per batch size and contender, described by :data:`pycv.bench.network_report.ROW`. A contender that cannot
    run the network has ``seconds`` None and ``unavailable`` the reason.

    Raises
    ------
    ValueError
        For a model, contender or number that cannot be, before anything is measured.
    RuntimeError
        If a process ends without an answer; the message holds the end of what it printed.
    """
    chosen = list(dict.fromkeys(contenders))
    for name in chosen:
        if name not in CONTENDERS:
            raise ValueError(f"contender {name!r}: expected one of {', '.join(CONTENDERS)}")
    models.image_shape(model)
    for word, value in {"batch": min(batches, default=1), "size": size or 1, "threads": threads or 1}.items():
        if value < 1:
            raise ValueError(f"{word}={value}: expected 1 or more")
    rows = [] if rows is None else rows
    steps = len(chosen) + 2
    for number, batch in enumerate(batches):

        def tell(done: int, what: str, number: int = number, batch: int = batch) -> None:
            if progress:
                progress(number * steps + done, len(batches) * steps, f"{model}, batch {batch}: {what}")

        with tempfile.TemporaryDirectory(prefix="pycv-bench-") as folder:
            job = Job(model, REFERENCE, batch, size, train, threads or torch.get_num_threads(), seed, folder)
            rows += _measured(job, chosen, budget, precision, tell)
    return rows


def _measured(
    job: Job, chosen: list[str], budget: float, precision: float, tell: Callable[[int, str], None]
) -> list[Row]:
    workers: dict[str, _Worker] = {}
    try:
        tell(0, "float64")
        engines = [name for name in chosen if name in ENGINES and importlib.util.find_spec(name)]
        with _Worker(replace(job, onnx=bool(engines) and not job.train)) as reference:
            reference.answer()
        started: dict[str, Row] = {}
        for done, name in enumerate(chosen):
            tell(done + 1, name)
            workers[name] = _Worker(replace(job, contender=name))
            started[name] = workers[name].answer()
        tell(len(chosen) + 1, "sampling")
        _sample([workers[name] for name in chosen if "ready" in started[name]], budget, precision)
        found = {
            name: workers[name].ask(do="finish", precision=precision) if "ready" in started[name] else started[name]
            for name in chosen
        }
    finally:
        for worker in workers.values():
            worker.close()
    tell(len(chosen) + 2, "done")
    return [_row(job, name, found[name]) for name in chosen]


def _sample(workers: Sequence[_Worker], budget: float, precision: float) -> None:
    deadline = time.perf_counter() + budget
    for rounds in range(MAX_SAMPLES if workers else 0):
        settled = []
        for i in range(len(workers)):
            time.sleep(PAUSE_SECONDS)
            answer = workers[(rounds + i) % len(workers)].ask(do="sample", precision=precision)
            settled.append(answer["settled"])
        if all(settled) or (rounds > 0 and time.perf_counter() > deadline):
            return


def _row(job: Job, name: str, found: Mapping[str, Any]) -> Row:
    timing = found.get("timing") or dict.fromkeys(MEASURED)
    return {
        "model": job.model,
        "batch": job.batch,
        "size": job.size or models.image_shape(job.model)[1],
        "mode": "training" if job.train else "inference",
        "device": "cpu",
        "precision": "fp32",
        "contender": name,
        "threads": job.threads,
        **timing,
        "images_per_second": job.batch / timing["seconds"] if timing["seconds"] else None,
        "peak_bytes": found.get("peak"),
        "base_bytes": found.get("base"),
        "error": found.get("error"),
        "layers": found.get("layers"),
        "unavailable": found.get("unavailable"),
    }


class _Worker:
    """A process and the lines that go to and fro."""

    def __init__(self, job: Job) -> None:
        self.name = job.contender
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pycv.bench.network_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._write(asdict(job))

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, **command: Any) -> dict[str, Any]:
        self._write(command)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip()[-600:]
            raise RuntimeError(f"the process of {self.name} ended ({self._process.returncode}): {last}")
        return json.loads(line)

    def _write(self, value: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the answer says why

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
