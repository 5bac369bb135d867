"""Recipes: what they say, what they refuse, and that each of pycv's trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pycv import models
from pycv.data import create
from pycv.train import inputs, recipe, train
from pycv.train import run as runs

HEAVY = {"alexnet", "imagenet-resnet50"}  # whose checkpoints are of hundreds of megabytes
ELSEWHERE = {"googlenet", "inception-v3"}  # test_run.py trains them, and more


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_survive_being_written(name):
    loaded = recipe.load(name)
    assert loaded.name == name
    assert recipe.parse(recipe.dump(loaded)) == loaded
    changed = recipe.override(
        loaded, ['data.path=a "b"\\c', "loop.patience=3", "data.options.size=8", "optim.betas=0.8,0.9"]
    )
    assert recipe.parse(recipe.dump(changed)) == changed != loaded


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_make_pictures_that_their_networks_take(name):
    wanted = inputs.on_synthetic_data(recipe.load(name), 3)
    picture = create("synthetic", **wanted.data.options).image(0)
    random = np.random.default_rng(0)
    shapes = {
        tuple(transform(picture, random).shape)
        for transform in (inputs.training_transform(wanted.augment), inputs.evaluation_transform(wanted.augment))
    }
    assert len(shapes) == 1
    with torch.device("meta"):
        model = runs.build_model(wanted.model, 10).eval()
        assert model(torch.empty(2, *shapes.pop())).shape == (2, 10)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.full if n in HEAVY else ()) for n in recipe.names() if n not in ELSEWHERE],
)
def test_shipped_recipes_train_for_two_steps(name, tmp_path):
    """On synthetic pictures, 32×32 where the network takes that."""
    wanted = inputs.on_synthetic_data(recipe.load(name), 40)
    size = {"alexnet": 227}.get(name, 32)
    assignments = [
        *("batch_size=8", "loop.max_steps=2", "data.workers=0", "loop.device=cpu", "loop.evaluation_batch=16"),
        *(f"augment.size={size}", f"data.options.size={size}"),
    ]
    outcome = train(recipe.override(wanted, assignments), tmp_path / "run")
    assert outcome.test is not None and len(outcome.test.index) == 40
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [('"test"' in line, '"step": 2' in line) for line in lines] == [(False, True), (False, True), (True, True)]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lr=-1", r"optim.lr=-1.0: expected a number above 0"),
        ("optim.lr=fast", r"optim.lr='fast': expected a number"),
        ("optim.rate=1", r"optim.rate: no such key; did you mean optim"),
        ("optm.lr=1", r"optm: no such key; did you mean optim\?"),
        ("loop.amp=f16", r"loop.amp='f16': expected one of none, bf16, fp16"),
        ("seed=1.5", r"seed='1.5': expected a whole number"),
        ("seed=-1", r"seed=-1: expected a number at least 0 and below"),
        ("loop.compile=1", r"loop.compile='1': expected true or false"),
        ("schedule.milestones=1,a", r"schedule.milestones='a': expected a whole number"),
        ("optim=3", r"optim is a table; name one of its keys"),
        ("seed.a=1", r"seed.a: no such key; seed is no table"),
        ("model.arguments=3", r"expected model.arguments.KEY=VALUE"),
        ("lr", r"--set lr: expected KEY=VALUE"),
    ],
)
def test_overrides_that_are_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        recipe.override(recipe.Recipe(), [assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = true", "epochs=True: expected a whole number"),
        ("[optim]\nlr = '1'", "optim.lr='1': expected a number"),
        ("[optim]\nbetas = 0.9", "optim.betas=0.9: expected a list of a numbers"),
        ("[data]\noptions = 3", "data.options=3: expected a table"),
        ("data = 3", "data=3: expected a table"),
        ("[loops]", "loops: no such key; did you mean loop"),
        ("epochs = ", "Invalid value"),
    ],
)
def test_files_that_are_refused(text, message, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        recipe.load(path)
    assert str(raised.value).startswith(str(path))


def test_names_of_recipes():
    with pytest.raises(ValueError, match="no such recipe; did you mean lenet-digits"):
        recipe.load("lenet-digit")
    with pytest.raises(FileNotFoundError):
        recipe.load("nowhere.toml")
    assert all(models.image_shape(recipe.load(name).model.name) for name in recipe.names())


def test_values_are_read_as_their_fields_want_them():
    assignments = [
        *("optim.lr=1", "schedule.milestones=3, 5", "loop.clip_norm=2", "loop.threads=4", "loop.threads=none"),
        *("model.arguments.groups=1", "model.arguments.kind=x", "loop.compile=true"),
    ]
    changed = recipe.override(recipe.Recipe(), assignments)
    assert changed.optim.lr == 1.0 and isinstance(changed.optim.lr, float)
    assert changed.schedule.milestones == (3, 5) and changed.loop.clip_norm == 2.0 and changed.loop.threads is None
    assert changed.model.arguments == {"groups": 1, "kind": "x"} and changed.loop.compile is True
    assert recipe.override(changed, ["model.arguments={}"]).model.arguments == {}
    assert recipe.override(changed, ["model.arguments={a = 1}"]).model.arguments == {"a": 1}
