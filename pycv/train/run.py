"""A run from its recipe to its report, as ``pycv train`` and Python call it.

``runs/NAME/`` has ``recipe.toml`` (every key), ``environment.json``, ``metrics.jsonl``, ``checkpoints/`` (the best
weights as safetensors, too),
``evaluation.npz`` (of the best weights, on the test data where there are any) and the report.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import models, settings
from ..data import EvalLoader, ImageDataset, Subset, TrainLoader, decode
from ..info import info
from ..registry import UnsupportedError
from . import inputs, losses, optimizers, recipe, schedules
from .checkpoints import BEST, Checkpoints, read
from .distributed import Group, choose_device, joined, synchronised
from .errors import DiskFull, TrainError
from .evaluate import Evaluation, evaluate, scores_of
from .files import Records, write_whole
from .inputs import Parts
from .interrupt import noted
from .loop import Observer, Trainer
from .losses import Loss
from .placement import Placement
from .recipe import Kernels, Recipe
from .report import write_report

EVALUATION = "evaluation.npz"
EXPORTED = "best.safetensors"
# A run that goes on has these, and all of the model, as it began: they say which state belongs to which parameter.
KEPT = ("batch_size", "optim.name", "optim.decay_all", "optim.layer_decay")


@dataclass(frozen=True)
class Outcome:
    """What a run has come to: its folder, the best validation, and the evaluation of those weights on the test data
    (None without such data)."""

    run: Path
    best_top1: float
    best_epoch: int
    test: Evaluation | None


@dataclass
class Session:
    """A run that is ready to train."""

    trainer: Trainer
    run: Path
    parts: Parts

    def train(self) -> Outcome:
        """Trains, then evaluates the best weights on the test data, once.

        Raises
        ------
        TrainError
            If the run ends before its time: Diverged, DiskFull, Interrupted. The message says what is kept. Also if
            its best weights cannot be read back.
        DataError
            If a sample is damaged and ``data.on_corrupt`` is ``refuse``.
        """
        try:
            return self._trained()
        except DiskFull as error:
            raise DiskFull(f"{error}; {self.trainer.kept()}. Make room and go on with --resume") from None

    def _trained(self) -> Outcome:
        self.trainer.run()
        trainer, group, best = self.trainer, self.trainer.group, self.trainer.progress.best
        group.barrier()  # process 0 has written the best weights
        trainer.model.load_state_dict(self._best()["model"])
        if group.main:
            self._export()
        test = None if self.parts.test is None else self._tested(self.parts.test)
        return Outcome(self.run, best[0], int(best[3]), test)

    def _export(self) -> None:
        """The best weights for other programs, where safetensors is installed."""
        with suppress(ImportError):
            from safetensors.torch import save

            state = {key: value.cpu().clone().contiguous() for key, value in self.trainer.model.state_dict().items()}
            about = {"model": self.trainer.recipe.model.name, "classes": json.dumps(self.trainer.classes)}
            write_whole(self.run / "checkpoints" / EXPORTED, save(state, about))

    def _best(self) -> dict[str, Any]:
        try:
            return read(self.run / "checkpoints" / BEST)
        except (OSError, ValueError) as error:
            raise TrainError(f"{error}: the best weights are lost; {self.trainer.kept()}") from None

    def report(self, vs: Path | None = None) -> Path:
        """Writes the run's report, of the best weights, after :meth:`train`; in process 0. It times the layers, which
        takes some seconds. ``vs`` is the folder of a run to be set beside it: of the same seed on torch's layers."""
        shown = self.parts.validation if self.parts.test is None else self.parts.test
        return write_report(
            self.run, self.trainer.model.eval(), self.parts.classes, lambda index: np.asarray(shown.image(index)), vs
        )

    def _tested(self, dataset: ImageDataset) -> Evaluation:
        trainer, best = self.trainer, self.trainer.progress.best
        loader = evaluation_loader(trainer.recipe, dataset, trainer.group)
        # Asked to stop it saves nothing: the end of training is saved, and the weights in hand are the best ones.
        arguments = (trainer.loss, len(trainer.classes), trainer.placement, trainer.group)
        found = evaluate(
            [trainer.model], loader, *arguments, between=lambda: trainer.grant_wish(save=False), say=trainer.say
        )
        rate, seconds = trainer.rate, trainer.progress.seconds
        record = {"kind": "test", "epoch": int(best[3]), "step": int(best[2]), **found.record()}
        trainer.tell(record | {"learning_rate": rate, "seconds": seconds})
        if trainer.group.main:
            found.save(self.run / EVALUATION)
        return found


def train(wanted: Recipe, run: str | Path, **options: Any) -> Outcome:
    """Train as a recipe says, from the start or from where it was left; arguments and errors as :func:`prepared` and
    :meth:`Session.train`."""
    with prepared(wanted, run, **options) as session:
        return session.train()


@contextmanager
def prepared(
    wanted: Recipe,
    run: str | Path,
    *,
    resume: bool = False,
    observers: Callable[[Path], Sequence[Observer]] = lambda run: (),
    model: nn.Module | None = None,
    data: Parts | None = None,
    loss: Loss | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Session]:
    """Everything up to the first step; under torchrun every process calls it.

    Parameters
    ----------
    run
        The run's folder, made if it is not there; of several processes what process 0 says counts.
    resume
        Go on from the newest whole checkpoint of the folder, from the start if there is none. Without it a folder with
        checkpoints is refused.
    observers
        Makes what watches the run from its folder; called in process 0.
    model, data, loss
        Of your own, in place of the recipe's: then resuming, too, needs them.
    say
        Takes lines that the user should read.

    Raises
    ------
    ValueError, FileNotFoundError, DataError
        For what the recipe, the paths or the data do not give, and what a run that goes on cannot change, before
        anything is written.
    TrainError
        If there are checkpoints, but none is whole.
    pycv.UnsupportedError
        If kernels were asked for that cannot run a layer.
    """
    with ExitStack() as stack:
        group = stack.enter_context(joined(wanted.loop.device))
        stack.enter_context(threads(wanted.loop.threads))
        stack.enter_context(settings.use(**kernel_settings(wanted.kernels)))
        say = say if group.main else _silent
        path, resume = group.gather((str(run), resume))[0]
        run = Path(path)
        checkpoints = Checkpoints(run / "checkpoints", wanted.loop.keep_last)
        if group.main:
            require_startable(wanted, run, resume)
        parts = inputs.parts(wanted.data, wanted.seed) if data is None else data
        torch.manual_seed(wanted.seed)
        model = build_model(wanted.model, len(parts.classes)) if model is None else model
        loss = losses.build(wanted.loss) if loss is None else loss
        loader = training_loader(wanted, parts.train, group)
        wish = stack.enter_context(noted())
        trainer = Trainer(
            wanted, *_placed(wanted, model, loss, len(loader), group), loader,
            evaluation_loader(wanted, parts.validation, group), parts.classes, Placement.of(wanted.loop, group.device),
            group, checkpoints, kernels_in_force(), wish, lambda found: found.save(run / EVALUATION), say,
        )  # fmt: skip
        stack.push(trainer.leave)
        check_outputs(trainer, parts.train)
        torch.manual_seed((wanted.seed << 16) + group.rank + 1)  # dropout differs between processes
        if group.main:
            checkpoints.prepare()
        group.barrier()
        state = checkpoints.newest(say) if resume else None
        if state is not None:
            require_same(recipe.parse(state["recipe"]), wanted)
            trainer.load_state_dict(state)
            say(f"going on after step {trainer.progress.step} of {trainer.total_steps}")
        if group.main:
            write_whole(run / "recipe.toml", recipe.dump(wanted).encode())
            write_whole(run / "environment.json", (json.dumps(environment(group), indent=1) + "\n").encode())
            trainer.records = Records(run / "metrics.jsonl", trainer.progress.records)
            stack.callback(trainer.records.close)
            trainer.observers = tuple(observers(run))
            for observer in trainer.observers:
                stack.callback(observer.close)
        yield Session(trainer, run, parts)


def require_startable(wanted: Recipe, run: Path, resume: bool) -> None:
    """What can be said without any work: ValueError for a folder that has a run, and for kernels that there are not."""
    if not resume and Checkpoints(run / "checkpoints", wanted.loop.keep_last).paths():
        raise ValueError(f"{run}: has checkpoints; go on with --resume {run}, or take another name")
    with settings.use(**kernel_settings(wanted.kernels)):
        pass


def require_same(begun: Recipe, wanted: Recipe) -> None:
    """ValueError if a run is to go on with what its weights, its optimizer or its place in an epoch do not fit."""
    before, now = recipe.flat(begun), recipe.flat(wanted)
    for key, value in now.items():
        if (key in KEPT or key.startswith("model.")) and value != before[key]:
            raise ValueError(f"{key}={value!r}: the run began with {before[key]!r} and can go on with that only")
    if wanted.optim.name == "rmsprop" and wanted.optim.momentum > begun.optim.momentum == 0:
        raise ValueError(
            f"optim.momentum={wanted.optim.momentum}: the run began without, and rmsprop has none to go on"
        )


def _silent(line: str) -> None:
    """What processes other than the first have to say."""


def _placed(
    wanted: Recipe, model: nn.Module, loss: Loss, steps: int, group: Group
) -> tuple[nn.Module, Loss, torch.optim.Optimizer, schedules.Schedule]:
    """The model where it is trained, and what trains it."""
    if wanted.loop.sync_batchnorm:
        model = synchronised(model, group.device)
    model = Placement.of(wanted.loop, group.device).model(model)
    return model, loss, optimizers.build(wanted.optim, model), schedules.build(wanted.schedule, wanted.epochs, steps)


# ------------------------------------------------------------------------------------------------ the parts of a run


def build_model(wanted: recipe.Model, classes: int) -> nn.Module:
    """The network that a recipe names; ValueError if it refuses the arguments, or the weights are not for it."""
    arguments = {"num_classes": classes, **wanted.arguments}
    try:
        model = models.create(wanted.name, weights=wanted.weights, **arguments)
    except TypeError as error:
        raise ValueError(f"model.arguments={wanted.arguments}: {error}") from None
    except RuntimeError as error:  # torch's, on several lines
        if wanted.weights is None:
            raise
        raise ValueError(f"model.weights={wanted.weights!r}: {' '.join(str(error).split())}") from None
    if wanted.freeze is not None:
        models.freeze(model, None if wanted.freeze == "head" else wanted.freeze)
    return model


def training_loader(wanted: Recipe, dataset: ImageDataset, group: Group) -> TrainLoader:
    """Batches to train on, this process's share of each."""
    return TrainLoader(
        dataset,
        wanted.batch_size,
        inputs.training_transform(wanted.augment),
        seed=wanted.seed,
        mix=inputs.mix(wanted.augment),
        workers=wanted.data.workers,
        rank=group.rank,
        world=group.world,
        on_corrupt=wanted.data.on_corrupt,
        pin_memory=group.device.type == "cuda",
    )


def evaluation_loader(wanted: Recipe, dataset: ImageDataset, group: Group, crops: int = 1) -> EvalLoader:
    """Every sample once, this process's share of them."""
    return EvalLoader(
        dataset,
        wanted.loop.evaluation_batch,
        inputs.evaluation_transform(wanted.augment, crops),
        workers=wanted.data.workers,
        rank=group.rank,
        world=group.world,
        on_corrupt=wanted.data.on_corrupt,
        pin_memory=group.device.type == "cuda",
    )


@torch.no_grad()
def check_outputs(trainer: Trainer, dataset: ImageDataset) -> None:
    """Asks the network about some pictures, as in evaluation and as in training, where auxiliary heads may want larger
    ones and batch normalisation more than one: it takes such pictures, and has an output for every label.

    Raises
    ------
    ValueError
        If not; the message says what is at odds.
    """
    wanted = trainer.recipe
    some = Subset(dataset, range(min(len(dataset), 8)))  # of which not all should be damaged
    transform = inputs.evaluation_transform(wanted.augment)
    (batch,) = EvalLoader(some, len(some), transform, on_corrupt=wanted.data.on_corrupt)
    pictures = trainer.placement.images(batch.images)
    at_once = max(1, wanted.batch_size // trainer.group.world // wanted.loop.accumulate)
    try:
        scores = trainer.loss.scores(trainer.model.eval()(pictures))
        _train_mode_outputs(trainer.model, pictures[:at_once])
    except UnsupportedError:
        raise
    except (RuntimeError, ValueError) as error:
        shape = "×".join(map(str, batch.images.shape[1:]))
        how = ", in training" if trainer.model.training else ""
        raise ValueError(f"model.name={wanted.model.name!r} does not take the {shape} pictures of the data{how}: "
                         f"{error}") from None  # fmt: skip
    highest = int(dataset.labels.max())
    if scores.shape[1] <= highest:
        sample = dataset.name(int(dataset.labels.argmax()))
        raise ValueError(f"{sample}: label {highest} is out of range for a network of {scores.shape[1]} outputs")
    if scores.shape[1] != len(dataset.classes):
        raise ValueError(f"the network has {scores.shape[1]} outputs, the data {len(dataset.classes)} classes")


def _train_mode_outputs(model: nn.Module, pictures: Tensor) -> None:
    """Calls the network in training mode; batch normalisation's statistics and the random numbers of dropout stay."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng():
            model.train()(pictures)
    finally:
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads for the kernels, if a number is given."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def kernel_settings(kernels: Kernels) -> dict[str, Any]:
    """The arguments of pycv.use; ValueError for a name that is none."""
    chosen = {name: value for name, value in asdict(kernels).items() if value is not None}
    if "=" in chosen.get("algorithm", ""):
        pairs = [pair.partition("=") for pair in chosen["algorithm"].split(",")]
        chosen["algorithm"] = {op.strip(): name.strip() for op, _, name in pairs}
    return chosen


def kernels_in_force() -> dict[str, Any]:
    """What decides which kernels run, beside the problem; bit-identical results need all of it to be the same."""
    here = info()
    return {
        "settings": settings.current_text(),
        "threads": torch.get_num_threads(),
        "instruction set": here.isa or "none",
        "cost model": here.cost_model,
        "torch": str(here.torch),  # a class of its own, which weights_only refuses
        "pycv": here.version,
    }


def environment(group: Group) -> dict[str, Any]:
    """What ran, where and how it was called."""
    called = {"command": shlex.join(sys.argv), "processes": group.world, "device": str(group.device)}
    return called | {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z")} | asdict(info())


# --------------------------------------------------------------------------------------- using what was trained


@dataclass(frozen=True)
class Trained:
    """A network with its best weights, and what it was trained as."""

    path: Path
    model: nn.Module
    recipe: Recipe
    classes: tuple[str, ...]


def load(path: str | Path) -> Trained:
    """The best weights of a run's folder, or those of a ``best.pt``.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If the file is damaged.
    """
    path = Path(path)
    file = path / "checkpoints" / BEST if path.is_dir() else path
    content = read(file)
    if "classes" not in content:
        raise ValueError(f"{file}: holds the state of a run; its best weights are in {file.with_name(BEST)}")
    wanted = recipe.parse(content["recipe"])
    model = build_model(_without_weights(wanted.model), len(content["classes"]))
    model.load_state_dict(content["model"])
    return Trained(file, model.eval(), wanted, tuple(content["classes"]))


def _without_weights(wanted: recipe.Model) -> recipe.Model:
    """The same network before any are loaded; what published ones had it built with are arguments of its own."""
    published = models.published.ARGUMENTS.get(wanted.name, {}) if wanted.weights == "imagenet" else {}
    return replace(wanted, weights=None, freeze=None, arguments=published | wanted.arguments)


def evaluate_runs(
    trained: Sequence[Trained],
    wanted: Recipe,
    split: str = "validation",
    crops: int = 1,
    data: Parts | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Evaluate networks, several as an ensemble whose probabilities are averaged; under torchrun on shares of the data.

    Parameters
    ----------
    wanted
        Whose data, pictures, device and kernels: usually ``trained[0].recipe``.
    split
        ``train``, ``validation`` or ``test``.
    crops
        Test-time crops: 1, 2, 5 or 10.
    say
        Takes the names of pictures that were skipped; called in process 0.

    Raises
    ------
    ValueError
        If the networks were trained on other classes than the data has, there is no such part, or a network may have
        been trained on what it would be judged by.
    Diverged
        If scores are not finite.
    """
    with (
        joined(wanted.loop.device) as group,
        threads(wanted.loop.threads),
        settings.use(**kernel_settings(wanted.kernels)),
    ):
        dataset = (inputs.parts(wanted.data, wanted.seed) if data is None else data).by_name(split)
        for each in trained:
            require_unseen(each, wanted, split)
            if each.classes != dataset.classes:
                raise ValueError(f"{each.path}: trained on other classes ({', '.join(each.classes[:5])} ...) than the "
                                 f"data have ({', '.join(dataset.classes[:5])} ...)")  # fmt: skip
        placement = Placement.of(wanted.loop, group.device)
        loader = evaluation_loader(wanted, dataset, group, crops)
        networks = [placement.model(each.model) for each in trained]
        arguments = (losses.build(wanted.loss), len(dataset.classes), placement, group)
        return evaluate(networks, loader, *arguments, say=say if group.main else _silent)


def require_unseen(trained: Trained, wanted: Recipe, split: str) -> None:
    """ValueError where data that are cut into parts were cut otherwise for the network: it may have seen these."""
    own_split = getattr(wanted.data, split) is not None and not wanted.data.folds
    same_data = (trained.recipe.data.name, trained.recipe.data.path) == (wanted.data.name, wanted.data.path)
    if split == "train" or own_split or not same_data:
        return
    cut, other = _cut(wanted), _cut(trained.recipe)
    if different := [f"{key}={other[key]!r} (here {value!r})" for key, value in cut.items() if other[key] != value]:
        raise ValueError(
            f"{trained.path}: trained on parts of the data that were cut by {', '.join(different)}: it may have seen "
            "what it would be judged by; runs of one data.seed can be compared and combined"
        )


def _cut(wanted: Recipe) -> dict[str, Any]:
    """All that decides which picture is in which part."""
    keys = ("train", "validation", "test", "validation_share", "test_share", "folds", "fold")
    seed = wanted.seed if wanted.data.seed is None else wanted.data.seed
    return {f"data.{key}": getattr(wanted.data, key) for key in keys} | {"data.seed": seed}


@torch.no_grad()
def predict(
    trained: Sequence[Trained], files: Sequence[str | Path], crops: int = 1, device: str = "auto"
) -> list[dict[str, float]]:
    """For each picture file the probability of every class, the likeliest first; of several networks together.

    Raises
    ------
    FileNotFoundError, CorruptImage
        If a file is not there or no picture.
    ValueError
        If the networks were trained on different classes.
    Diverged
        If scores are not finite.
    """
    wanted, classes = trained[0].recipe, trained[0].classes
    if any(each.classes != classes for each in trained):
        raise ValueError("the networks were trained on different classes")
    transform = inputs.evaluation_transform(wanted.augment, crops)
    placement = Placement.of(wanted.loop, choose_device(device, key="device"))
    networks, loss = [placement.model(each.model).eval() for each in trained], losses.build(wanted.loss)
    found = []
    for file in files:
        image = transform(decode(Path(file), str(file), inputs.picture_mode(wanted)), np.random.default_rng(0))
        scores = scores_of(networks, image[None], loss, placement)
        (probabilities,) = loss.probabilities(scores).tolist()
        order = scores[0].argsort(descending=True, stable=True).tolist()  # in which probabilities may tie
        found.append({classes[number]: probabilities[number] for number in order})
    return found
