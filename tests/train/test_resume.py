"""A run that was ended anywhere goes on to the same weights, to the bit."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest
import torch

import pycv
from pycv.train import DiskFull, Diverged, Interrupted, TrainError, checkpoints

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
        "best.pt", "step-00000015.pt", "step-00000018.pt",
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


# ------------------------------------------------------------------------------------- what goes wrong in a run


def test_a_loss_that_is_no_number(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(
        Diverged, match=r"the loss is (nan|inf) at step \d+ \(epoch .*learning rate .*step-000000\d+.pt"
    ):
        small.run(path, "optim.lr=1e30", "loop.ema=0", "schedule.name=constant", "schedule.warm_up=0")
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


def test_a_folder_that_has_a_run_is_not_overwritten(whole):
    with pytest.raises(ValueError, match="has checkpoints; go on with --resume"):
        small.run(whole[0])


def test_unreadable_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "nothing.pt")
    torch.save({"format": 0}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no checkpoint of this format"):
        checkpoints.read(tmp_path / "other.pt")
