"""The training loop.

A run is a sequence of steps; between two of them everything that decides the rest of it can be saved, and is: at the
end of every epoch, every ``loop.checkpoint_every`` steps, and when somebody asks it to stop. What goes wrong inside a
step (a loss that is no number) ends the run before the weights change; the last checkpoint stays the last.
"""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..data import Batch, DataError, EvalLoader, TrainLoader
from ..data.loader import worker_is_gone
from . import optimizers
from .average import Average
from .checkpoints import Checkpoints
from .distributed import Group
from .errors import Diverged, Interrupted, TrainError
from .evaluate import Evaluation, evaluate
from .files import Records
from .interrupt import Wish
from .losses import Loss
from .placement import Placement
from .recipe import Recipe, dump
from .schedules import Schedule


class Observer(Protocol):
    """Watches a run: a progress bar, TensorBoard."""

    def start(self, total_steps: int, done_steps: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None:
        """Hears every line of metrics.jsonl."""
        ...

    def close(self) -> None: ...


@dataclass
class Progress:
    """How far a run has come, in plain numbers; part of every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    records: int = 0  # lines of metrics.jsonl
    window: list[float] = field(default_factory=lambda: [0.0] * 4)  # since the last: Σ loss, top 1, top 5; pictures
    window_seconds: float = 0.0  # that these have taken, as far as ``seconds`` does not have them
    best: list[float] = field(default_factory=list)  # top1 and -loss of the best validation, its step and epoch
    waited: int = 0  # epochs since
    unjudged: int = 0  # the epoch that is trained but whose validation has not ended; 0: there is none


@dataclass
class Trainer:
    """Everything that a run consists of. ``run()`` goes on from wherever ``progress`` and ``loader`` stand."""

    recipe: Recipe
    model: nn.Module  # itself; what is called in training may be wrapped around it
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: TrainLoader
    validation: EvalLoader
    classes: tuple[str, ...]
    placement: Placement
    group: Group
    checkpoints: Checkpoints
    kernels: dict[str, Any]  # in force; kept with every checkpoint
    wish: Wish
    evaluated: Callable[[Evaluation], None]  # hears of every best validation
    say: Callable[[str], None]  # takes lines that the user should read
    records: Records | None = None  # of process 0
    observers: Sequence[Observer] = ()
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        loop = self.recipe.loop
        self.scaler = self.placement.scaler()
        self.average = Average(self.model, loop.ema) if loop.ema else None
        self._parallel = parallel(self.model, self.group) if self.group.world > 1 else None
        called = self.model if self._parallel is None else self._parallel
        self._called: Callable[[Tensor], Any] = torch.compile(called) if loop.compile else called
        self._clock = time.perf_counter()

    # ------------------------------------------------------------------------------------------------- the run

    def run(self) -> None:
        """Trains to the end of the last epoch, or until there is nothing more to gain.

        Raises
        ------
        Diverged
            If a loss or gradient is not finite, or the gradient's norm above ``loop.max_norm``.
        Interrupted
            If a signal asked for it; the state is saved.
        DiskFull
            If something does not fit.
        DataError
            If a sample is damaged and ``data.on_corrupt`` is ``refuse``, or batches come no more.
        TrainError
            If a process that makes batches is killed in the middle of a step.
        """
        try:
            self._run()
        except RuntimeError as error:
            if not worker_is_gone(error):
                raise
            raise TrainError(f"{str(error).strip()} {self.kept()}. Go on with --resume") from None

    def _run(self) -> None:
        self._clock = time.perf_counter() - self.progress.window_seconds
        for observer in self.observers:
            observer.start(self.total_steps, self.progress.step)
        if self.progress.step == 0:
            self._save()
        if self.progress.unjudged:
            self._judge(self.progress.unjudged)
        while not self._finished():
            epoch = self.loader.epoch + 1
            self._epoch(epoch)
            self._judge(epoch)

    def leave(self, kind: object = None, error: BaseException | None = None, trace: object = None) -> None:
        """Lets go of what exchanges gradients, before its process group ends; there is no training after it. Called as
        the exit of a with statement.

        Where DistributedDataParallel is the last to hold the group, freeing it waits for gloo's threads and keeps
        Python's lock meanwhile, which such a thread may want: both wait for ever. An error that comes from inside of
        it holds it, too, by the variables of the calls that it has come through.
        """
        if self._parallel is not None:
            self._parallel, self._called = None, self.model
            while error is not None:
                traceback.clear_frames(error.__traceback__)
                error = error.__cause__ or error.__context__
            gc.collect()

    @property
    def total_steps(self) -> int:
        steps = self.recipe.epochs * len(self.loader)
        return min(steps, self.recipe.loop.max_steps or steps)

    def _finished(self) -> bool:
        patience = self.recipe.loop.patience
        stopped_early = patience is not None and self.progress.waited > patience
        return stopped_early or self.loader.epoch >= self.recipe.epochs or self.progress.step >= self.total_steps

    def _judge(self, epoch: int) -> None:
        """Ends an epoch with its last line about steps and its validation, and saves."""
        self.progress.unjudged = epoch
        if self.progress.window[3]:
            self._record_window(epoch)
        with self._saved_if_damaged():
            self._validate(epoch)
        self.progress.unjudged = 0
        self._save()

    def _epoch(self, epoch: int) -> None:
        """What is left of an epoch."""
        loop, progress = self.recipe.loop, self.progress
        self.model.train()
        for batch in self._batches():
            self._name_skipped(batch.skipped)
            try:
                self._step(batch, epoch)
            except Diverged:
                if progress.window[3]:
                    self._record_window(epoch)
                raise
            if progress.step % loop.log_every == 0:
                self._record_window(epoch)
            ends = progress.step % len(self.loader) == 0
            if ends or progress.step >= self.total_steps:
                progress.unjudged = epoch  # also for whoever goes on from here, and finds no step of it to take
            self.grant_wish()
            if progress.step >= self.total_steps and not ends:
                break  # at the end of an epoch the loader is to know that it has come there
            if loop.checkpoint_every and progress.step % loop.checkpoint_every == 0:
                self._save()

    def _name_skipped(self, reasons: Sequence[str]) -> None:
        """Of every process: only the first has somebody to tell."""
        if self.recipe.data.on_corrupt == "skip":
            for reason in chain.from_iterable(self.group.gather(reasons)):
                self.say(f"skipped: {reason}")

    def _batches(self) -> Iterator[Batch]:
        with self._saved_if_damaged():
            yield from self.loader

    @contextmanager
    def _saved_if_damaged(self) -> Iterator[None]:
        """A damaged picture ends the run; what came before it is saved if this process is alone. Of several the others
        are waiting for something else of it by then."""
        try:
            yield
        except DataError:
            if self.group.world == 1:
                self._save()
            raise

    def grant_wish(self, save: bool = True) -> None:
        """Saves and ends if any process was asked to; all learn of it at the same moment."""
        (wishes,) = self.group.sum([float(self.wish.stop)])
        if wishes:
            if save:
                self._save()
            raise Interrupted(f"interrupted after step {self.progress.step} of {self.total_steps}; everything is saved")

    # --------------------------------------------------------------------------------------------------- a step

    def _step(self, batch: Batch, epoch: int) -> None:
        """One step of the optimizer, on a batch in one or several parts."""
        progress, optim, loop = self.progress, self.recipe.optim, self.recipe.loop
        rate = optim.lr * self.schedule.share(progress.step)
        optimizers.set_rate(self.optimizer, rate)
        if (momentum := self.schedule.momentum(progress.step)) is not None:
            optimizers.set_momentum(self.optimizer, momentum)
        where = f"step {progress.step + 1} (epoch {epoch}, learning rate {rate:.3g})"
        sums = self._backward(batch)
        self._require_finite(sums[0] / max(1, sums[3]), where)
        self.scaler.unscale_(self.optimizer)
        if optim.l1:
            optimizers.add_l1(self.optimizer, optim.l1)
        parameters = optimizers.trained(self.optimizer)
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._require_small(norm.item(), where)
        if loop.clip_norm:
            clip_grads_with_norm_(parameters, loop.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        progress.step += 1
        if self.average is not None:
            self.average.follow(self.model, progress.step)
        progress.window = [total + value for total, value in zip(progress.window, sums, strict=True)]

    def _backward(self, batch: Batch) -> list[float]:
        """Gradients of the mean loss of all processes' batches; this one's Σ loss, top-1 and top-5 hits, pictures."""
        count = len(batch.labels)
        # Of the mean over all processes each contributes in proportion to its pictures: some may have been skipped.
        share = 1.0
        if self.recipe.data.on_corrupt == "skip":
            share = count * self.group.world / self.group.sum([count])[0]
        parts = min(self.recipe.loop.accumulate, count)
        pieces = zip(*(part.tensor_split(parts) for part in (batch.images, batch.targets, batch.labels)), strict=True)
        sums = torch.zeros(3, dtype=torch.float64, device=self.placement.device)
        for number, (images, targets, labels) in enumerate(pieces, 1):
            last = number == parts
            with nullcontext() if last else self._without_exchange():
                with self.placement.autocast():
                    outputs = self._called(self.placement.images(images))
                    loss = self.loss(outputs, self.placement.targets(targets))
                self.scaler.scale(loss * (share * len(images) / count)).backward()
            scores = self.loss.scores(outputs).detach()
            sums[0] += loss.detach().double() * len(images)
            sums[1:] += hits(scores, self.placement.targets(labels))
        return [*sums.tolist(), float(count)]

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return self.recipe.optim.lr * self.schedule.share(max(0, self.progress.step - 1))

    def _without_exchange(self) -> AbstractContextManager:
        """Around all parts of a batch but the last: gradients are averaged over the processes once."""
        return self._parallel.no_sync() if self._parallel is not None else nullcontext()

    def _require_finite(self, loss: float, where: str) -> None:
        """Every process hears of it, before any changes its weights."""
        (wrong,) = self.group.sum([float(not math.isfinite(loss))])
        if wrong:
            raise Diverged(f"the loss is {loss} at {where}; {self.kept()}. A lower optim.lr, a schedule.warm_up or "
                           "loop.clip_norm may help")  # fmt: skip

    def _require_small(self, norm: float, where: str) -> None:
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # of fp16 the scaler skips such steps
            raise Diverged(f"the gradient's norm is {norm} at {where}; {self.kept()}. A lower optim.lr may help")
        most = self.recipe.loop.max_norm
        if most is not None and math.isfinite(norm) and norm > most:
            raise Diverged(f"the gradient's norm is {norm:.3g}, above loop.max_norm={most:g}, at {where}; "
                           f"{self.kept()}. A lower optim.lr or loop.clip_norm may help")  # fmt: skip

    def kept(self) -> str:
        """Where one can go on from."""
        paths = self.checkpoints.paths()
        return f"metrics are kept, and {paths[-1]}" if paths else "metrics are kept"

    # ----------------------------------------------------------------------------------- what is told and saved

    def _record_window(self, epoch: int) -> None:
        """A line for the steps since the last one."""
        now = time.perf_counter()
        loss, top1, top5, count = self.group.sum(self.progress.window)
        self.progress.window = [0.0] * 4
        seconds, self._clock = now - self._clock, now
        self.progress.seconds += seconds
        means = {"loss": loss / count, "top1": top1 / count, "top5": top5 / count}
        self._record("step", epoch, means | {"images_per_second": count / seconds})

    def _validate(self, epoch: int) -> None:
        """Evaluates what is to be kept; keeps it if it is the best so far."""
        network = self.model if self.average is None else self.average.model
        arguments = (self.loss, len(self.classes), self.placement, self.group)
        try:
            found = evaluate([network], self.validation, *arguments, between=self.grant_wish, say=self.say)
        except Diverged as error:
            where = f"after step {self.progress.step} (epoch {epoch})"
            raise Diverged(f"{error}, {where}; {self.kept()}. A lower optim.lr may help") from None
        self.schedule.validated(found.loss)
        self.progress.seconds += time.perf_counter() - self._clock
        self._clock = time.perf_counter()
        self._record("validation", epoch, found.record())
        rank = [found.top1, -found.loss]
        if not self.progress.best or rank > self.progress.best[:2]:
            self.progress.best, self.progress.waited = [*rank, self.progress.step, epoch], 0
            self._save_best(network, found, epoch)
        else:
            self.progress.waited += 1

    def _record(self, kind: str, epoch: int, values: dict[str, float]) -> None:
        record = {
            "kind": kind, "epoch": epoch, "step": self.progress.step, **values,
            "learning_rate": self.rate, "seconds": self.progress.seconds,
        }  # fmt: skip
        self.tell(record)

    def tell(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl, and lets the observers hear it."""
        if self.records is not None:
            self.records.write(record)
            self.progress.records = self.records.count
        for observer in self.observers:
            observer.record(record)

    def _save_best(self, network: nn.Module, found: Evaluation, epoch: int) -> None:
        if not self.group.main:
            return
        self.evaluated(found)
        self.checkpoints.save_best(
            {
                "model": network.state_dict(),
                "classes": list(self.classes),
                "recipe": self.recipe_text,
                "step": self.progress.step,
                "epoch": epoch,
                "validation": found.record(),
            }
        )

    def _save(self) -> None:
        """Writes a checkpoint; process 0 does, with the random numbers of all."""
        random = self.group.gather(random_state(self.placement.device))
        if not self.group.main:
            return
        if self.records is not None:
            self.records.sync()
        self.progress.window_seconds = time.perf_counter() - self._clock
        self.checkpoints.save(self.progress.step, self.state_dict() | {"random": random})

    # -------------------------------------------------------------------------------------------------- state

    @property
    def recipe_text(self) -> str:
        return dump(self.recipe)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the random numbers of other processes, in tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict(),
            "progress": asdict(self.progress),
            "kernels": self.kernels,
            "recipe": self.recipe_text,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a checkpoint; says where the rest may differ from what would have followed.

        Where the recipe has changed, its settings hold; an average or schedule that is new begins here.

        Raises
        ------
        ValueError
            If the state is that of another network or other data.
        """
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"model: the run was that of another network ({' '.join(str(error).split())})") from None
        if self.average is not None:
            self.average.model.load_state_dict(state["model"] if state["average"] is None else state["average"])
        optimizers.load_state(self.optimizer, state["optimizer"])
        if state["schedule"]:
            self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.loader.load_state_dict(state["loader"])
        self.progress = Progress(**state["progress"])
        for name, value in self.kernels.items():
            if (before := state["kernels"].get(name)) != value:
                self.say(f"{name} was {before!r}, now it is {value!r}: the same weights to rounding only")
        if len(state["random"]) == self.group.world:
            set_random_state(state["random"][self.group.rank], self.placement.device)
        else:
            self.say(f"{len(state['random'])} processes before, {self.group.world} now: dropout draws other numbers")


def parallel(model: nn.Module, group: Group) -> DistributedDataParallel:
    """The model around which processes exchange gradients."""
    device_ids = [group.device.index] if group.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)


@torch.no_grad()
def hits(scores: Tensor, labels: Tensor) -> Tensor:
    """int64 (2,): how many labels are the class of the highest score, and among the five highest."""
    ranked = scores.topk(min(5, scores.shape[1]), 1).indices == labels[:, None]
    return torch.stack([ranked[:, 0].sum(), ranked.sum()])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Of torch's generators, which draw for dropout."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Takes up what :func:`random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
