"""A run that was ended anywhere goes on to the same weights, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

import pycv
from pycv.data import ArrayImages, CorruptImage, DataError
from pycv.data.order import epoch_order
from pycv.train import DiskFull, Diverged, Interrupted, TrainError, checkpoints, prepared

from ..seed import SEED
from . import small


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed, and how long it took."""
    path = tmp_path_factory.mktemp("whole") / "run"
    small.run(path.with_name("first"), "loop.max_steps=1")  # imports and plans
    start = time.perf_counter()
    small.run(path)
    return path, time.perf_counter() - start


def test_what_a_run_writes(whole):
    path, _ = whole
    lines = small.records(path)
    assert [line["kind"] for line in lines if line["kind"] != "step"] == ["validation"] * 3 + ["test"]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [4, 6, 8, 12, 16, 18]
    assert lines[-2]["loss"] < lines[2]["loss"] and lines[-1]["top5"] == 1.0
    assert {"epoch", "step", "loss", "top1", "top5", "learning_rate"} < set(lines[0])
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == [
        "best.pt", "best.safetensors", "step-00000015.pt", "step-00000018.pt",
    ]  # fmt: skip
    assert (path / "environment.json").is_file() and "lr = 0.05" in (path / "recipe.toml").read_text()


def kill(child: int, after: float) -> bool:
    """Whether the child was still there to be killed."""
    time.sleep(after)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        assert status == 0
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_killed_at_random_moments(kills, whole, tmp_path):
    """Many moments fall into the writing of a checkpoint: here one follows every step."""
    undisturbed, seconds = whole
    moments = random.Random(SEED)
    path, done = tmp_path / "run", 0
    while done < kills:
        child = small.forked(partial(small.run, path, "loop.checkpoint_every=1", resume=True))
        if kill(child, moments.uniform(0.05, 1.0) * seconds):
            done += 1
        else:
            small.assert_same_run(path, undisturbed)  # it was whole before it could be killed: again from the start
            path = tmp_path / f"run-{done}-{time.monotonic_ns()}"
    small.run(path, "loop.checkpoint_every=1", resume=True)
    small.assert_same_run(path, undisturbed)
    assert not list((path / "checkpoints").glob(".unfinished*"))


def test_a_signal_saves_and_ends(whole, tmp_path):
    """Between two steps; what is in hand of the lines of metrics.jsonl is kept, too."""
    before = signal.getsignal(signal.SIGINT)
    for number, step in ((signal.SIGINT, 4), (signal.SIGTERM, 12)):
        path = tmp_path / str(number)

        def interrupt(record, number=number, step=step):
            if record["step"] == step and record["kind"] == "step":
                os.kill(os.getpid(), number)

        with pytest.raises(Interrupted, match=f"after step {step} of 18; everything is saved"):
            small.run(path, observers=lambda run, do=interrupt: [small.Watch(do)])
        watch, said = small.Watch(lambda record: None), []
        small.run(path, resume=True, observers=lambda run, watch=watch: [watch], say=said.append)
        assert watch.calls == [(18, step), "closed"] and said == [f"going on after step {step} of 18"]
        small.assert_same_run(path, whole[0])
    assert signal.getsignal(signal.SIGINT) is before


def test_the_pace_of_a_run_that_goes_on_is_that_of_all_steps_of_a_line(tmp_path):
    class Slow(ArrayImages):
        broken = int(epoch_order(48, 0, 0, True)[-1])

        def image(self, index):
            time.sleep(0.01)
            if index == self.broken:
                raise CorruptImage(f"{self.name(index)}: truncated")
            return super().image(index)

    train = small.PARTS.train
    options = ["loop.log_every=100", "epochs=1", "schedule.warm_up=0"]
    slow = replace(small.PARTS, train=Slow(train.images, train.labels, train.classes))
    with pytest.raises(CorruptImage):
        small.run(tmp_path, *options, data=slow)
    assert small.newest(tmp_path)["progress"]["step"] == 5
    slow.train.broken = -1
    small.run(tmp_path, *options, data=slow, resume=True)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert line["step"] == 6 and line["images_per_second"] < 100 and line["seconds"] > 0.48


@pytest.mark.parametrize(("kind", "error"), [("step", Interrupted), ("validation", KeyboardInterrupt)])
def test_ended_between_the_last_step_and_its_validation(kind, error, tmp_path):
    """By the first signal right after the step, or by a second one after the checkpoint of that step."""
    options = ("epochs=1", "schedule.warm_up=0", "loop.log_every=3", "loop.checkpoint_every=1")
    small.run(tmp_path / "whole", *options)

    def interrupt(record):
        if record["step"] == 6 and record["kind"] == kind:
            for _ in range(1 if kind == "step" else 2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(error):
        small.run(tmp_path / "run", *options, observers=lambda run: [small.Watch(interrupt)])
    small.run(tmp_path / "run", *options, resume=True)
    small.assert_same_run(tmp_path / "run", tmp_path / "whole")


class Pressed(ArrayImages):
    """The pictures of another dataset; when the eighth is asked for the ``at``-th time, somebody presses Ctrl-C."""

    def __init__(self, other: ArrayImages, at: int) -> None:
        super().__init__(other.images, other.labels, other.classes, other.source)
        self.left = at

    def image(self, index):
        self.left -= index == 7
        if index == 7 and self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().image(index)


@pytest.mark.parametrize(("part", "at", "step"), [("validation", 2, 12), ("test", 1, 18)])
def test_a_signal_during_an_evaluation(part, at, step, whole, tmp_path):
    """It is given up, and made anew by the run that goes on."""
    path = tmp_path / "run"
    parts = replace(small.PARTS, **{part: Pressed(getattr(small.PARTS, part), at)})
    with pytest.raises(Interrupted, match=f"after step {step} of 18; everything is saved"):
        small.run(path, data=parts)
    assert [line["kind"] for line in small.records(path)].count(part) == at - 1
    small.run(path, resume=True)
    small.assert_same_run(path, whole[0])


@pytest.mark.parametrize(("presses", "error"), [(1, Interrupted), (2, KeyboardInterrupt)])
def test_a_signal_while_a_checkpoint_is_written(presses, error, whole, tmp_path, monkeypatch):
    """The first waits for the file to be whole, the second does not."""
    path, before, written = tmp_path / "run", os.fsync, []

    def fsync(file):
        if not written and "step-00000010" in os.readlink(f"/proc/self/fd/{file}"):
            written.append(file)
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
        before(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(error):
        small.run(path)
    assert written
    small.run(path, resume=True)
    small.assert_same_run(path, whole[0])
    assert not list((path / "checkpoints").glob(".unfinished*"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_in_the_middle_of_a_cycle_of_the_momentum(optimizer, tmp_path):
    """While it falls and while it rises; a run that keeps the momentum comes to other weights."""
    options = (f"optim.name={optimizer}", "optim.lr=0.01", "schedule.name=one_cycle", "schedule.warm_up=0")
    small.run(tmp_path / "whole", *options)
    for steps in (3, 11):
        small.run(tmp_path / "run", *options, f"loop.max_steps={steps}", resume=True)
    small.run(tmp_path / "run", *options, resume=True)
    weights = [small.newest(tmp_path / name)["model"] for name in ("whole", "run")]
    small.assert_same(*weights, "")
    small.run(tmp_path / "kept", *options, "schedule.momentum=[]")
    assert not torch.equal(weights[0]["0.weight"], small.newest(tmp_path / "kept")["model"]["0.weight"])


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(damage, whole, tmp_path):
    path = tmp_path / "run"
    small.run(path, "loop.max_steps=10")
    last = path / "checkpoints/step-00000010.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes({"truncated": content[: len(content) // 3], "changed": content, "empty": b""}[damage])
    said: list[str] = []
    small.run(path, resume=True, say=said.append)
    assert str(last) in said[0] and "the one before it is taken" in said[0] and "after step 6 " in said[1]
    small.assert_same_run(path, whole[0])
    for checkpoint in (path / "checkpoints").glob("step*"):
        checkpoint.write_bytes(b"PK")
    with pytest.raises(TrainError, match="none of the 2 checkpoints is whole"):
        small.run(path, resume=True)


def test_checkpoints_are_plain(whole):
    """torch.load takes them with weights_only=True; the best one is a file of weights for models.load_weights."""
    path, _ = whole
    state = torch.load(path / "checkpoints/step-00000018.pt", weights_only=True)
    kept = {"model", "average", "optimizer", "schedule", "scaler", "loader", "random", "progress", "kernels", "recipe"}
    assert kept < set(state)
    model = small.network()
    pycv.models.weights.load_weights(model, path / "checkpoints/best.pt")
    small.assert_same(dict(model.state_dict()), dict(small.best(path)), "")


def test_other_kernels_than_before_are_said(whole, tmp_path):
    path, said = tmp_path / "run", []
    small.run(path, "loop.max_steps=5")
    small.run(path, "loop.max_steps=10", "kernels.backend=torch", resume=True, say=said.append)
    assert any(line.startswith("settings was") and "to rounding only" in line for line in said)


def test_what_may_change_when_a_run_goes_on(tmp_path):
    """The settings are the new ones; an average that is new begins at the weights that there are."""
    path = tmp_path / "run"
    small.run(path, "loop.max_steps=6", "loop.ema=0")
    changes = ("optim.momentum=0.5", "optim.weight_decay=0.01", "schedule.name=plateau", "loop.amp=fp16")
    wanted = small.small("loop.max_steps=8", "loop.ema=0.99", *changes)
    with prepared(wanted, path, resume=True, model=small.network(), data=small.PARTS, say=lambda line: None) as session:
        group = session.trainer.optimizer.param_groups[0]
        assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
        assert session.trainer.optimizer.state_dict()["state"][0]["momentum_buffer"].any()
        small.assert_same(dict(session.trainer.average.model.state_dict()), dict(small.newest(path)["model"]), "")
        assert session.train().best_epoch


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("batch_size=16", {}, "batch_size=16: the run began with 8 and"),
        ("optim.name=adam", {}, "optim.name='adam': the run began with 'sgd'"),
        ("optim.decay_all=false", {}, "optim.decay_all=False: the run began with True"),
        ("model.name=alexnet", {}, "model.name='alexnet': the run began with 'lenet5'"),
        ("epochs=4", {"model": small.network(norm=False)}, "model: the run was that of another network"),
        ("seed=3", {}, "seed was 0, here it is 3"),
    ],
)
def test_what_may_not_change_when_a_run_goes_on(change, options, message, whole, tmp_path):
    """It is said before anything is written."""
    path = shutil.copytree(whole[0], tmp_path / "run")
    before = (path / "recipe.toml").read_text()
    with pytest.raises(ValueError, match=message):
        small.run(path, change, resume=True, **options)
    assert (path / "recipe.toml").read_text() == before


def test_rmsprop_has_no_momentum_to_go_on_with(tmp_path):
    options = ("optim.name=rmsprop", "loop.max_steps=2")
    small.run(tmp_path / "run", *options, "optim.momentum=0")
    with pytest.raises(ValueError, match=r"optim.momentum=0.9: the run began without"):
        small.run(tmp_path / "run", *options, resume=True)


def test_a_run_that_was_at_its_end_gets_more_epochs(whole, tmp_path):
    """To the same weights, and no epoch is judged twice."""
    path = tmp_path / "run"
    constant = ("schedule.name=constant", "schedule.warm_up=0")
    small.run(tmp_path / "whole", *constant)
    small.run(path, *constant, "epochs=2")
    small.run(path, *constant, resume=True)
    judged = [line for line in small.records(path) if line["kind"] == "validation"]
    assert judged == [line for line in small.records(tmp_path / "whole") if line["kind"] == "validation"]


# ------------------------------------------------------------------------------------- what goes wrong in a run


class Worn(ArrayImages):
    """The pictures of another dataset; when one has been asked for so many times, it cannot be had."""

    def __init__(self, other: ArrayImages, times: int, error: Exception) -> None:
        super().__init__(other.images, other.labels, other.classes, other.source)
        self.left, self.error = times, error

    def image(self, index):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return super().image(index)


# Of 8 pictures the network is asked beforehand; a step takes 8, a validation 17.
@pytest.mark.parametrize("error", [CorruptImage("made: truncated"), FileNotFoundError(2, "Not there", "made")])
@pytest.mark.parametrize(("part", "times", "step"), [("train", 8 + 35, 4), ("validation", 17 + 3, 12)])
def test_what_came_before_a_damaged_picture_is_saved(part, times, step, error, whole, tmp_path):
    path = tmp_path / "run"
    parts = replace(small.PARTS, **{part: Worn(getattr(small.PARTS, part), times, error)})
    with pytest.raises(DataError, match=r"^made: (truncated|not there)$"):
        small.run(path, data=parts)
    assert small.newest(path)["progress"]["step"] == step
    small.run(path, resume=True)  # the file has been replaced
    small.assert_same_run(path, whole[0])


def test_a_worker_that_is_killed_in_the_middle_of_something(whole, tmp_path):
    """As the system does where memory runs out."""
    path, others = tmp_path / "run", multiprocessing.active_children()

    def kill(record):
        for worker in set(multiprocessing.active_children()) - set(others):
            os.kill(worker.pid, signal.SIGKILL)
        time.sleep(5)  # the signal of its end comes meanwhile

    with pytest.raises(TrainError, match=r"worker .* is killed by signal: Killed. metrics are kept, and .*0.pt. Go"):
        small.run(path, "data.workers=1", observers=lambda run: [small.Watch(kill)])
    small.run(path, resume=True)
    small.assert_same_run(path, whole[0])


def test_a_loss_that_is_no_number(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(
        Diverged, match=r"the loss is (nan|inf) at step \d+ \(epoch .*learning rate .*step-000000\d+.pt"
    ):
        small.run(path, "optim.lr=1e30", "loop.ema=0", "schedule.name=constant", "schedule.warm_up=0")
    (line,) = small.records(path)  # of the steps before it, though it was not their turn yet
    assert line["kind"] == "step" and 0 < line["step"] < 4
    state = small.newest(path)
    assert all(value.isfinite().all() for value in state["model"].values())
    small.run(path, resume=True)  # with a sane rate it goes on


def test_a_gradient_that_explodes(tmp_path):
    with pytest.raises(Diverged, match=r"the gradient's norm is .*, above loop.max_norm=0.001, at step 1 .*step-0+.pt"):
        small.run(tmp_path / "run", "loop.max_norm=1e-3")


def test_a_full_disk(whole, tmp_path):
    """The system refuses to write beyond a size, in the middle of a checkpoint."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "run"

    def fill(record):
        if record["step"] == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))

    try:
        with pytest.raises(DiskFull) as raised:
            small.run(path, observers=lambda run: [small.Watch(fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = str(raised.value)
    assert "step-00000010.pt" in message and "bytes do not fit" in message and "step-00000006.pt. Make room" in message
    assert sorted(p.name for p in (path / "checkpoints").glob("*step*"))[-1] == "step-00000006.pt"
    small.run(path, resume=True)
    small.assert_same_run(path, whole[0])


def test_a_disk_that_is_full_for_a_line_of_metrics(tmp_path):
    """Closing the file tries once more, and fails; what is raised names the file and what to do all the same."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "run"

    def fill(record):
        resource.setrlimit(resource.RLIMIT_FSIZE, ((path / "metrics.jsonl").stat().st_size + 10, before[1]))

    try:
        with pytest.raises(DiskFull, match=r"metrics.jsonl: .* bytes do not fit: .*step-00000000.pt. Make room and go"):
            small.run(path, "loop.log_every=1", observers=lambda run: [small.Watch(fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_at_the_end(tmp_path):
    """Only the predictions on the test data did not fit: going on evaluates once more."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    watch = small.Watch(
        lambda record: record["kind"] == "test" and resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    )
    try:
        with pytest.raises(
            DiskFull, match=r"evaluation.npz: .* bytes do not fit: .*step-00000002.pt. Make room and go"
        ):
            small.run(tmp_path / "run", "loop.max_steps=2", observers=lambda run: [watch])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    small.run(tmp_path / "run", "loop.max_steps=2", resume=True)
    assert [line["kind"] for line in small.records(tmp_path / "run")].count("test") == 1


def test_a_network_that_is_no_number_in_evaluation(tmp_path):
    class Hollow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 4)

        def forward(self, x):
            return self.layer(x.flatten(1)) / (1 if self.training or len(x) > 5 else 0)

    with pytest.raises(Diverged, match=r"scores are not finite, after step 6 \(epoch 1\); metrics are"):
        small.run(tmp_path / "run", model=Hollow())


def test_a_folder_that_has_a_run_is_not_overwritten(whole):
    with pytest.raises(ValueError, match="has checkpoints; go on with --resume"):
        small.run(whole[0])


def test_best_weights_that_are_lost(whole, tmp_path):
    path = shutil.copytree(whole[0], tmp_path / "run")
    (path / "checkpoints/best.pt").write_bytes(b"PK")
    with pytest.raises(
        TrainError, match=r"best.pt: damaged or no checkpoint .*: the best weights are lost; .*step-0+18"
    ):
        small.run(path, resume=True)


def test_unreadable_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "nothing.pt")
    torch.save({"format": 0}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no checkpoint of this format"):
        checkpoints.read(tmp_path / "other.pt")
