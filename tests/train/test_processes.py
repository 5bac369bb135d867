"""Two processes are one, to rounding, at the same global batch; batches in parts are whole ones."""

from __future__ import annotations

import gc
import os
import shlex
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch.distributed.run
from torch.nn.parallel import DistributedDataParallel

from pycv.cli.train import _train_parser
from pycv.train import distributed, recipe

from . import small

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_CHANCE = {"dropout": 0.0, "norm": False}  # dropout draws per process, batch normalisation sees its share


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def as_process(rank: int, world: int, port: int, run) -> None:
    """What torchrun says to each."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    run()


def together(world: int, run) -> list[int]:
    """Runs in so many processes; their exit codes."""
    port = free_port()
    children = [small.forked(partial(as_process, rank, world, port, run)) for rank in range(world)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "run"
    small.run(path, model=small.network(**WITHOUT_CHANCE))
    return path


def assert_equal_to_rounding(one, other) -> None:
    ours, theirs = small.records(one), small.records(other)
    assert len(ours) == len(theirs) == 10
    for a, b in zip(ours, theirs, strict=True):
        assert a.pop("kind") == b.pop("kind") and a == pytest.approx(b, rel=1e-5)
    weights, others = small.newest(one)["model"], small.newest(other)["model"]
    for key, value in weights.items():
        np.testing.assert_allclose(value, others[key], rtol=1e-4, atol=1e-6)
    with np.load(one / "evaluation.npz") as a, np.load(other / "evaluation.npz") as b:
        assert np.array_equal(a["index"], np.arange(18)) and np.array_equal(b["index"], a["index"])
        assert np.array_equal(a["target"], b["target"]) and np.array_equal(a["prediction"], b["prediction"])


def test_two_processes_are_one(alone, tmp_path):
    """The last batch of an evaluation has two samples where five were asked for: nobody repeats or loses one."""
    path = tmp_path / "two"
    codes = together(2, lambda: small.run(path, "loop.accumulate=2", model=small.network(**WITHOUT_CHANCE)))
    assert codes == [0, 0]
    assert_equal_to_rounding(path, alone)
    assert len(small.newest(path)["random"]) == 2


def test_one_goes_on_where_two_were(alone, tmp_path):
    path, said = tmp_path / "run", []
    begin = partial(small.run, path, "loop.max_steps=9", model=small.network(**WITHOUT_CHANCE))
    assert together(2, begin) == [0, 0]
    small.run(path, resume=True, model=small.network(**WITHOUT_CHANCE), say=said.append)
    assert any("2 processes before, 1 now" in line for line in said)
    weights, others = small.newest(path)["model"], small.newest(alone)["model"]
    for key, value in weights.items():
        np.testing.assert_allclose(value, others[key], rtol=1e-4, atol=1e-6)


class Broken(Exception):
    pass


class BreaksDown(torch.nn.Module):
    """At the second step: the first call in training is a trial."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = small.network(), 0

    def forward(self, x):
        self.calls += self.training
        if self.calls > 2:
            raise Broken
        return self.network(x)


@pytest.mark.parametrize("model", [small.network, BreaksDown])
def test_gradients_are_exchanged_no_more_when_the_group_ends(model, tmp_path, monkeypatch):
    """DistributedDataParallel that outlives the group may wait for ever as it is freed."""

    def destroy_process_group():
        assert not [found for found in gc.get_objects() if isinstance(found, DistributedDataParallel)]
        end()

    def run():
        with suppress(Broken):
            small.run(tmp_path / "run", "loop.max_steps=2", model=model())
            assert model is not BreaksDown

    end = torch.distributed.destroy_process_group
    monkeypatch.setattr(torch.distributed, "destroy_process_group", destroy_process_group)
    assert together(2, run) == [0, 0]


def test_the_damaged_pictures_of_every_process_are_named(tmp_path):
    parts = replace(small.PARTS, train=small.damaged(small.PARTS.train, 40, 41))

    def run():
        said: list[str] = []
        settings = ("data.on_corrupt=skip", "epochs=1", "schedule.warm_up=0")
        small.run(tmp_path / "run", *settings, data=parts, say=said.append)
        (tmp_path / f"said-{os.environ['RANK']}").write_text("\n".join(sorted(said)))

    assert together(2, run) == [0, 0]
    assert (tmp_path / "said-0").read_text() == "skipped: made[40]: truncated\nskipped: made[41]: truncated"
    assert not (tmp_path / "said-1").read_text()


def test_batches_in_parts_are_whole_ones(alone, tmp_path):
    small.run(tmp_path / "run", "loop.accumulate=3", model=small.network(**WITHOUT_CHANCE))
    assert_equal_to_rounding(tmp_path / "run", alone)


def assert_understood(command: list[str]) -> None:
    """By torchrun, which looks through all of its arguments, and by pycv train."""
    wanted = torch.distributed.run.get_args_parser().parse_args(command)
    assert wanted.module and wanted.training_script == "pycv.cli" and wanted.training_script_args[0] == "train"
    options = _train_parser().parse_args(wanted.training_script_args[1:])
    recipe.override(recipe.load(options.recipe), options.set)


def test_documented_commands_have_real_options():
    lines = (ROOT / "docs/training.md").read_text().replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("    torchrun ")]
    assert len(commands) == 2
    for command in commands:
        assert_understood(command[1:])


@pytest.mark.parametrize(
    ("job", "code", "again"), [("exit 0", 0, False), ("exit 3", 3, False), ("exec sleep 60", 143, True)]
)
def test_the_slurm_script_comes_back_only_when_its_time_is_over(job, code, again, tmp_path):
    """With stand-ins for SLURM's own commands."""
    called, queued = tmp_path / "called", tmp_path / "queued"
    for name, does in {
        "srun": f'echo "$@" > {called}; {job}',
        "scontrol": f'[ "$1" = show ] && echo node7 || echo "$@" > {queued}',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "5", "SLURM_NNODES": "4"}
    process = subprocess.Popen(["bash", ROOT / "examples/train.slurm"], env=environment)
    if again:
        while not (called.exists() and called.read_text()):
            time.sleep(0.02)
        process.terminate()
    assert process.wait(30) == code and queued.exists() == again
    command = shlex.split(called.read_text())
    assert command[0] == "torchrun" and command[command.index("--rdzv-endpoint") + 1] == "node7:29500"
    assert_understood(command[1:])


def test_what_only_a_gpu_has(tmp_path):
    with pytest.raises(ValueError, match=r"loop.sync_batchnorm=true: torch has it on GPUs only, this runs on cpu"):
        small.run(tmp_path / "run", "loop.sync_batchnorm=true")
    with pytest.raises(ValueError, match=r"loop.device='cuda': torch finds no GPU here"):
        distributed.choose_device("cuda")
    assert not (tmp_path / "run").exists()
