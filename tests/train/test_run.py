"""Whole runs: what is refused before they begin, what they can be told to do, and what trained networks are for."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pycv
from pycv import cli, models
from pycv.data import ArrayImages, CorruptImage, DataError, EvalLoader
from pycv.train import Parts, Trained, checkpoints, evaluate_runs, inputs, load, predict, recipe, train
from pycv.train.distributed import Group
from pycv.train.evaluate import evaluate
from pycv.train.losses import CrossEntropy, MultiTask, SquaredError, Task
from pycv.train.placement import Placement

from ..pipeline import layouts
from . import small

CPU = Placement(torch.device("cpu"))
ALONE = Group(0, 1, torch.device("cpu"))
DIGITS = (
    *("epochs=2", "loop.device=cpu", "loop.max_steps=12", "optim.lr=0.01", "augment.preset=plain"),
    *("schedule.name=constant",),
)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    """Two LeNets after 12 steps on the digits, with different seeds but one split."""
    folder = tmp_path_factory.mktemp("lenet")
    wanted = recipe.override(recipe.load("lenet-digits"), DIGITS)
    for name in ("one", "two"):
        train(replace(wanted, seed=1), folder / name, model=models.create("lenet5"))
    return folder


# -------------------------------------------------------------------------------------------- what is refused


def test_a_label_out_of_range(tmp_path):
    with pytest.raises(ValueError, match=r"made\[3\]: label 3 is out of range for a network of 3 outputs"):
        small.run(tmp_path / "run", model=small.network(outputs=3))
    with pytest.raises(ValueError, match="the network has 7 outputs, the data 4 classes"):
        small.run(tmp_path / "run", model=small.network(outputs=7))
    assert not (tmp_path / "run").exists()


def test_an_empty_class():
    labels = np.array([0] * 9 + [1])
    rare = ArrayImages(np.zeros((10, 4, 4), np.uint8), labels, ("many", "few"))
    with pytest.raises(DataError, match="class 'few' has no sample in"):
        inputs.split(rare, 0, 0.2, 0.2)
    with pytest.raises(DataError, match="no sample of class 'none'"):
        ArrayImages(np.zeros((10, 4, 4), np.uint8), labels, ("many", "few", "none"))


@pytest.mark.parametrize(
    ("assignments", "error", "message"),
    [
        (("data.name=mnist", "data.path=nowhere"), FileNotFoundError, "path='nowhere': no such file or folder"),
        (("data.name=mnis",), ValueError, "no such dataset; did you mean mnist"),
        (("data.options.sise=3",), ValueError, "data.options={'sise': 3}: .*unexpected keyword"),
        (("data.folds=3", "data.fold=3"), ValueError, "data.fold=3: expected less than data.folds=3"),
        (("data.folds=1",), ValueError, "data.folds=1: expected 2 or more, or 0 for none"),
        (("data.validation_share=0",), ValueError, "nothing to validate with"),
        (("model.name=lenet",), ValueError, "no such model; did you mean lenet5"),
        (("model.arguments.depth=3",), ValueError, "model.arguments={'depth': 3}: "),
        (("augment.size=24",), ValueError, "'lenet5' does not take the 1×24×24 pictures of the data: "),
        (("batch_size=5000",), ValueError, "batch_size=5000: more than the"),
        (("kernels.backend=gpu",), ValueError, "backend='gpu': expected one of cpu"),
        (("kernels.algorithm=magic",), ValueError, "algorithm='magic': known are"),
        (("model.freeze=c9",), ValueError, "layer 'c9': LeNet5 has none of that name"),
        (
            ("batch_size=1", "model.name=resnet20", "model.arguments.in_channels=1", "augment.size=4"),
            ValueError,
            "'resnet20' does not take the 1×4×4 pictures of the data, in training: ",
        ),
    ],
)
def test_recipes_that_do_not_fit_are_refused_before_anything_is_written(assignments, error, message, tmp_path):
    wanted = recipe.override(recipe.load("lenet-digits"), ["loop.device=cpu", *assignments])
    with pytest.raises(error, match=message):
        train(wanted, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------- what it can be told


def test_early_stopping(tmp_path):
    """With a rate of next to nothing no epoch is better than the first."""
    small.run(tmp_path / "run", "loop.patience=1", "epochs=9", "optim.lr=1e-30", "schedule.warm_up=0", "loop.ema=0",
              model=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))  # fmt: skip
    validated = [line["epoch"] for line in small.records(tmp_path / "run") if line["kind"] == "validation"]
    assert validated == [1, 2, 3]


WAYS = [
    ("loop.amp=bf16",),
    ("loop.amp=fp16",),
    ("loop.channels_last=true",),
    ("augment.mixup=0.4", "augment.rotation=10", "augment.jitter=0.2"),
    ("augment.cutmix=1", "augment.mixup=0.2"),
    ("loop.clip_norm=0.1", "optim.l1=1e-4"),
    ("data.workers=1",),
]


@pytest.mark.parametrize("options", WAYS, ids=",".join)
def test_ways_of_training(options, tmp_path):
    outcome = small.run(tmp_path / "run", "loop.max_steps=3", *options)
    assert outcome.test is not None and np.isfinite(outcome.test.loss)


@pytest.mark.full
def test_compiled(tmp_path):
    small.run(tmp_path / "compiled", "loop.max_steps=3", "loop.compile=true", model=small.network(0.0))
    small.run(tmp_path / "plain", "loop.max_steps=3", model=small.network(0.0))
    for ours, theirs in zip(small.records(tmp_path / "compiled"), small.records(tmp_path / "plain"), strict=True):
        assert ours.pop("kind") == theirs.pop("kind") and ours == pytest.approx(theirs, rel=1e-4)


def test_a_frozen_backbone_stays_as_it_was(tmp_path):
    wanted = recipe.override(recipe.load("lenet-digits"), [*DIGITS, "loop.max_steps=2", "model.freeze=head"])
    train(wanted, tmp_path / "run")
    torch.manual_seed(wanted.seed)
    start, found = models.create("lenet5").state_dict(), small.newest(tmp_path / "run")["model"]
    changed = {key for key in start if not torch.equal(start[key], found[key])}
    assert changed == {"output.weight", "output.bias"}


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.side, self.axis = nn.Linear(64, 4), nn.Linear(64, 2)

    def forward(self, x):
        return {"side": self.side(x.flatten(1)), "axis": self.axis(x.flatten(1))}


def test_several_heads_train_together(tmp_path):
    tasks = MultiTask({"side": Task(CrossEntropy()), "axis": Task(CrossEntropy(), 0.5, torch.tensor([0, 0, 1, 1]))})
    model = TwoHeads()
    start = model.axis.weight.detach().clone()
    outcome = small.run(tmp_path / "run", loss=tasks, model=model)
    assert not torch.equal(model.axis.weight, start) and outcome.test.confusion.shape == (4, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_pictures_are_refused_or_skipped_and_named(workers, tmp_path):
    parts = replace(small.PARTS, train=small.damaged(small.PARTS.train, 40, 41))
    with pytest.raises(CorruptImage, match=r"made\[4[01]\]: truncated"):
        small.run(tmp_path / "run", data=parts)
    said: list[str] = []
    small.run(tmp_path / "skip", "data.on_corrupt=skip", f"data.workers={workers}", "epochs=1", "schedule.warm_up=0",
              data=parts, say=said.append)  # fmt: skip
    assert sorted(said) == ["skipped: made[40]: truncated", "skipped: made[41]: truncated"]


def test_damaged_pictures_of_an_evaluation_are_skipped_and_named(tmp_path):
    """Even one that is alone in the last batch."""
    said: list[str] = []
    parts = replace(small.PARTS, test=small.damaged(small.pictures(41, 1), 40))
    outcome = small.run(tmp_path / "run", "data.on_corrupt=skip", "loop.max_steps=1", data=parts, say=said.append)
    assert said == ["skipped: made[40]: truncated"] and np.array_equal(outcome.test.index, np.arange(40))


def test_a_truncated_shard_is_refused_or_skipped(tmp_path):
    layouts.write_shards(tmp_path, layouts.pixels(12, 6, 4, 3), np.arange(12) % 2, 12)
    shard = tmp_path / "train-0000.tar"
    shard.write_bytes(shard.read_bytes()[:-12_000])
    wanted = recipe.Data(name="shards", path=str(tmp_path), validation_share=0.5)
    with pytest.raises(DataError, match=r"train-0000\.tar: "):
        inputs.parts(wanted, 0)
    with pytest.warns(UserWarning, match=r"train-0000\.tar: .*samples are used"):
        found = inputs.parts(replace(wanted, on_corrupt="skip"), 0)
    assert 0 < len(found.train) + len(found.validation) < 12


def test_folds_and_shares_of_data():
    data = replace(recipe.load("lenet-digits").data, folds=5, fold=1)
    parts = [inputs.parts(replace(data, fold=fold), 0) for fold in range(5)]
    tested = np.concatenate([part.test.indices for part in parts])
    assert np.array_equal(np.sort(tested), np.arange(1797))
    for part in parts:
        assert len(part.train) + len(part.validation) + len(part.test) == 1797
        assert np.bincount(part.validation.labels).min() >= 10


def test_data_are_cut_by_their_own_seed_where_they_have_one():
    own = recipe.load("lenet-digits").data
    first, second = (inputs.parts(replace(own, seed=None), seed).train.indices for seed in (0, 1))
    assert not np.array_equal(first, second)
    first, second = (inputs.parts(replace(own, seed=5), seed).train.indices for seed in (0, 1))
    assert np.array_equal(first, second)


# -------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_does_not_depend_on_the_batch():
    network, loss = small.network().eval(), CrossEntropy(0.1)
    transform = inputs.evaluation_transform(small.small().augment)
    found = [
        evaluate([network], EvalLoader(small.PARTS.test, size, transform), loss, 4, CPU, ALONE) for size in (1, 7, 18)
    ]
    images = torch.stack([transform(small.PARTS.test.image(i), None) for i in range(18)])
    with torch.no_grad():
        scores = network(images)
    labels = torch.from_numpy(small.PARTS.test.labels)
    for each in found:
        assert each.loss == pytest.approx(nn.functional.cross_entropy(scores, labels).item(), rel=1e-5)
        assert np.array_equal(each.prediction, scores.argmax(1)) and each.top5 == 1.0
        assert np.allclose(each.probability, scores.softmax(1).max(1).values, atol=1e-6)


def test_what_is_predicted_is_what_is_counted(tmp_path):
    """By scores, of which squared error cuts off what is no probability: here two classes are sure."""

    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.2, 1.5, 0.0, 2.0]]).repeat(len(x), 1)

    wanted = small.small("loss.name=squared_error")
    loader = EvalLoader(small.PARTS.test, 5, inputs.evaluation_transform(wanted.augment))
    found = evaluate([Sure()], loader, SquaredError(), 4, CPU, ALONE)
    assert (found.prediction == 3).all() and (found.probability == 1).all()
    assert found.confusion.sum(0).tolist() == [0, 0, 0, 18]
    small.PARTS.test.image(0).save(tmp_path / "picture.png")
    (probabilities,) = predict([Trained(tmp_path, Sure(), wanted, small.CLASSES)], [tmp_path / "picture.png"])
    assert list(probabilities.items()) == [("below", 1), ("right", 1), ("left", 1), ("above", 0)]


def test_crops_are_where_they_should_be():
    picture = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6))
    identity = inputs.Crops(4, 10, lambda window, random: torch.from_numpy(np.array(window))[None])
    found = identity(picture, None)
    assert found.shape == (10, 1, 4, 4)
    assert [int(crop[0, 0, 0]) for crop in found[:5]] == [7, 0, 2, 12, 14]
    assert torch.equal(found[5:], found[:5].flip(3))
    with pytest.raises(ValueError, match="crops=3: expected one of 1, 2, 5, 10"):
        inputs.Crops(4, 3, lambda window, random: window)


def test_ensembles_and_crops(lenet):
    trained = [load(lenet / "one"), load(lenet / "two" / "checkpoints" / "best.pt")]
    wanted = trained[0].recipe
    alone = [evaluate_runs([each], wanted, "test") for each in trained]
    both, cropped = evaluate_runs(trained, wanted, "test"), evaluate_runs(trained[:1], wanted, "test", crops=5)
    with np.load(lenet / "one/evaluation.npz") as kept:
        assert np.array_equal(kept["prediction"], alone[0].prediction)
    assert both.loss < max(each.loss for each in alone) and len(cropped.index) == len(both.index)
    assert not np.array_equal(alone[0].probability, both.probability)
    with pytest.raises(ValueError, match="trained on other classes"):
        evaluate_runs(trained, wanted, data=small.PARTS)


def test_what_cannot_be_loaded(lenet, tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path)
    with pytest.raises(ValueError, match="holds the state of a run; its best weights are in"):
        load(next((lenet / "one/checkpoints").glob("step*")))


def test_what_published_weights_are_built_with_is_kept(tmp_path):
    """GoogLeNet's were trained on other colours, and the network that goes on from them shifts its pictures."""
    model = models.create("googlenet", num_classes=2, transform_input=True, aux_logits=False)
    assignments = ["model.name=googlenet", "model.weights=imagenet", "model.arguments.aux_logits=false"]
    wanted = recipe.override(recipe.Recipe(), assignments)
    content = {"model": model.state_dict(), "classes": ["a", "b"], "recipe": recipe.dump(wanted)}
    (tmp_path / "best.pt").write_bytes(checkpoints.serialised(content))
    assert load(tmp_path / "best.pt").model.transform_input


# --------------------------------------------------------------------------------------------- the command line


def command(capsys, *arguments):
    code = cli.main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_eval_and_predict_as_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [option for assignment in DIGITS for option in ("--set", assignment)]
    code, out, err = command(capsys, "train", "--recipe", "lenet-digits", "--seed", 3, "--backend", "cpu", *options)
    assert code == 0 and "test top-1" in out and "report: runs/lenet-digits/report.html" in out, err
    written = recipe.load("runs/lenet-digits/recipe.toml")
    assert written.seed == 3 and written.kernels.backend == "cpu"
    state = small.newest(tmp_path / "runs/lenet-digits")
    assert json.loads(state["kernels"]["settings"]) == {"backend": "cpu"}

    code, out, _ = command(capsys, "eval", "runs/lenet-digits", "--split", "test", "--json")
    found, lines = json.loads(out), small.records(tmp_path / "runs/lenet-digits")
    assert code == 0 and found["top1"] == lines[-1]["top1"] and found["loss"] == pytest.approx(lines[-1]["loss"])
    code, out, _ = command(capsys, "eval", "runs/lenet-digits")
    assert code == 0 and out.startswith("validation: ") and len(out.splitlines()) == 11

    picture = inputs.parts(written.data, 3).test.image(0)
    picture.save("digit.png")
    code, out, _ = command(capsys, "predict", "runs/lenet-digits", "digit.png", "--json", "--top", 3)
    probabilities = json.loads(out)["probabilities"]
    with np.load("runs/lenet-digits/evaluation.npz") as kept:
        assert next(iter(probabilities.items())) == (
            str(kept["prediction"][0]), pytest.approx(float(kept["probability"][0]), abs=1e-5),
        )  # fmt: skip
    assert len(probabilities) == 3
    code, out, _ = command(capsys, "predict", "runs/lenet-digits", "digit.png")
    assert out.startswith("digit.png: ") and "%" in out


class WithSideHead(nn.Module):
    """Gives what GoogLeNet gives in training: a tuple, its own scores first."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x):
        x = x.flatten(1)
        return (self.main(x), self.side(x)) if self.training else self.main(x)


def test_an_auxiliary_head_learns_by_its_weight(tmp_path):
    """After one step of plain descent a head that counts 0.4 has moved 0.4 times as far as with weight 1."""
    moved = {}
    for weight in (0.0, 0.4, 1.0):
        torch.manual_seed(0)
        model = WithSideHead()
        start = model.side.weight.detach().clone()
        small.run(tmp_path / str(weight), "loop.max_steps=1", f"loss.auxiliary={weight}", "optim.momentum=0",
                  "optim.weight_decay=0", model=model)  # fmt: skip
        moved[weight] = small.newest(tmp_path / str(weight))["model"]["side.weight"] - start
    assert not moved[0.0].any() and moved[1.0].any()
    assert torch.allclose(moved[0.4], 0.4 * moved[1.0], atol=1e-7)


@pytest.mark.full
@pytest.mark.parametrize(("name", "size"), [("googlenet", 32), ("inception-v3", 299)])
def test_auxiliary_heads_from_the_command_line(name, size, tmp_path, capsys, monkeypatch):
    """Trained, evaluated, asked about a picture."""
    monkeypatch.chdir(tmp_path)
    assignments = (
        *("batch_size=2", "loop.max_steps=2", "loop.log_every=1", "data.workers=0", "loop.device=cpu"),
        "data.options.classes=2",
        *(f"augment.size={size}", f"data.options.size={size}", "loop.evaluation_batch=4", "loop.keep_last=1"),
    )
    options = [option for assignment in assignments for option in ("--set", assignment)]
    code, out, err = command(capsys, "train", "--recipe", name, "--synthetic", 6, "--out", "run", *options)
    assert code == 0 and "test top-1" in out, err
    state = checkpoints.read(tmp_path / "run/checkpoints/step-00000002.pt")
    heads = [key for key in state["model"] if key.startswith("aux") or key.startswith("AuxLogits")]
    torch.manual_seed(0)
    start = models.create(recipe.load(name).model.name, num_classes=2).state_dict()
    assert heads and any(not torch.equal(state["model"][key], start[key]) for key in heads)
    code, out, err = command(capsys, "eval", "run", "--json")
    assert code == 0 and 0 <= json.loads(out)["top1"] <= 1, err
    Image.new("RGB", (size, size), (200, 30, 30)).save("red.png")
    code, out, err = command(capsys, "predict", "run", "red.png")
    assert code == 0 and out.startswith("red.png: "), err


def test_beside_torch(tmp_path, capsys, monkeypatch):
    """The same start, the same data; the curves differ by rounding."""
    monkeypatch.chdir(tmp_path)
    options = [option for assignment in (*DIGITS, "loop.max_steps=3") for option in ("--set", assignment)]
    code, out, err = command(capsys, "train", "--recipe", "lenet-digits", "--out", "here", "--vs", "torch", *options)
    assert code == 0 and "report: here-torch/report.html" in out and "report: here/report.html" in out, err
    ours, theirs = small.records(tmp_path / "here"), small.records(tmp_path / "here-torch")
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-4)
    assert recipe.load("here-torch/recipe.toml").kernels.backend == "torch"
    assert "here-torch" in (tmp_path / "here/report.html").read_text()


def test_ensemble_of_one_is_it(lenet, tmp_path):
    trained = load(lenet / "one")
    Image.new("L", (20, 30), 128).save(tmp_path / "grey.png")
    (one,) = predict([trained], [tmp_path / "grey.png"])
    (two,) = predict([trained, trained], [tmp_path / "grey.png"])
    assert list(one) == list(two) and sum(one.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "expected either --recipe NAME"),
        (("train", "--recipe", "lenet"), "no such recipe; did you mean"),
        (("train", "--recipe", "lenet-mnist", "--data", "nowhere"), "path='nowhere': no such file or folder"),
        (("train", "--recipe", "lenet-digits", "--set", "optim.lr=0"), "optim.lr=0.0: expected a number above 0"),
        (("train", "--recipe", "lenet-digits", "--set", "optim.lr=inf"), "optim.lr=inf: expected a finite number"),
        (("train", "--recipe", "lenet-mnist"), "data.path (--data): none is given, expected the path of"),
        (("train", "--resume", "nowhere"), "nowhere/recipe.toml: no such file or directory"),
        (("train", "--recipe", "alexnet", "--synthetic", "5"), "class"),
        (("eval", "nowhere"), "nowhere"),
        (("predict", "nowhere", "x.png"), "nowhere"),
        (("predict", "nowhere", "x.png", "--top", "0"), "--top 0: expected at least 1"),
        (("train", "--resume", "one", "--out", "two"), "--out two: --resume one goes on where that run is"),
        (("train", "--recipe", "lenet-digits", "--set", "lr=1"), "lr: no such key; did you mean optim.lr?"),
    ],
)
def test_commands_that_are_refused(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, *arguments)
    assert code == 2 and err.startswith("pycv: error: ") and message in err and len(err.splitlines()) == 1


def test_what_trained_networks_cannot_do_here(lenet, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    for arguments, message in (
        (("eval", lenet / "one", "--backend", "cuda"), "no kernel for "),
        (("predict", lenet / "one", tmp_path / "black.png", "--device", "cuda"), "error: device='cuda': torch finds"),
    ):
        code, _, err = command(capsys, *arguments)
        assert code == 2 and message in err and len(err.splitlines()) == 1


def test_the_best_weights_as_safetensors(lenet):
    from safetensors import safe_open

    best = checkpoints.read(lenet / "one/checkpoints/best.pt")["model"]
    model = models.create("lenet5", weights=lenet / "one/checkpoints/best.safetensors")
    assert all(torch.equal(value, best[key]) for key, value in model.state_dict().items())
    with safe_open(lenet / "one/checkpoints/best.safetensors", "pt") as file:
        assert file.metadata() == {"model": "lenet5", "classes": json.dumps([str(digit) for digit in range(10)])}


def test_runs_are_judged_by_what_none_of_them_has_seen(lenet, capsys):
    one = load(lenet / "one")
    other = replace(one, recipe=recipe.override(one.recipe, ["seed=7"]))
    for trained, changes in (([one, other], []), ([one], ["seed=9"]), ([one], ["data.test_share=0.3"])):
        with pytest.raises(ValueError, match=r"it may have seen what it would be judged by"):
            evaluate_runs(trained, recipe.override(one.recipe, changes), "test")
    fixed = [replace(each, recipe=recipe.override(each.recipe, ["data.seed=0"])) for each in (one, other)]
    assert len(evaluate_runs(fixed, fixed[0].recipe, "test").index) > 0
    code, _, err = command(capsys, "eval", lenet / "one", "--split", "test", "--seed", "9")
    assert code == 2 and "data.seed=1 (here 9)" in err and len(err.splitlines()) == 1
    assert command(capsys, "eval", lenet / "one", "--split", "train", "--seed", "9")[0] == 0
    folded = recipe.override(one.recipe, ["seed=9", "data.test_share=0", "data.folds=3"])
    assert len(evaluate_runs([one], folded, "train").index) > 0


def test_networks_whose_scores_are_no_numbers(lenet, tmp_path, capsys):
    broken = checkpoints.read(lenet / "one/checkpoints/best.pt")
    next(iter(broken["model"].values())).fill_(float("nan"))
    torch.save(broken, tmp_path / "best.pt")
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    for arguments in (("eval", tmp_path / "best.pt"), ("predict", tmp_path / "best.pt", tmp_path / "black.png")):
        code, out, err = command(capsys, *arguments)
        assert code == 2 and err == "pycv: error: the network's scores are not finite\n" and not out


@pytest.mark.parametrize("module", ["sklearn", "pycv.train.progress"])
def test_what_is_not_installed(module, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = command(
        capsys, "train", "--recipe", "lenet-digits", "--set", "loop.max_steps=1", "--out", tmp_path / "run"
    )
    assert code == 2 and err.endswith(': pip install "pycv[train]"\n') and len(err.splitlines()) == 1


def test_weights_of_another_network(tmp_path, capsys, monkeypatch):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for name, message in (("wrong.pth", "is not of this LeNet5; missing in it: "), ("w.safetensors", "pip install")):
        options = ("--set", f"model.weights={tmp_path / name}", "--out", tmp_path / "run")
        code, _, err = command(capsys, "train", "--recipe", "lenet-digits", *options)
        assert code == 2 and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_class_without_pictures_in_json(lenet, capsys, monkeypatch):
    found = evaluate_runs([load(lenet / "one")], load(lenet / "one").recipe, "test")
    shares = np.array([np.nan, *found.per_class[1:]])
    monkeypatch.setattr("pycv.train.evaluate_runs", lambda *_, **__: replace(found, per_class=shares))
    code, out, _ = command(capsys, "eval", lenet / "one", "--json")
    assert code == 0 and "NaN" not in out and json.loads(out)["per_class"] == [None, *shares[1:]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((), "has checkpoints; go on with"),
        (("--algorithm", "magic"), "algorithm='magic': known"),
        (("--backend", "cuda"), "no kernel for conv2d.forward"),
    ],
)
def test_nothing_is_trained_beside_a_run_that_is_refused(option, message, tmp_path, capsys):
    (tmp_path / "here/checkpoints").mkdir(parents=True)
    if not option:
        (tmp_path / "here/checkpoints/step-00000001.pt").touch()
    out = ("--out", tmp_path / "here", "--vs", "torch")
    code, _, err = command(capsys, "train", "--recipe", "lenet-digits", *out, "--set", "loop.max_steps=1", *option)
    assert code == 2 and message in err and not (tmp_path / "here-torch").exists()


def test_list_of_recipes(capsys):
    code, out, _ = command(capsys, "train", "--list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == recipe.names()


def test_patched_networks_train_too(tmp_path):
    """Plain torch layers, put onto pycv's kernels."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    pycv.patch(model)
    small.run(tmp_path / "run", "loop.max_steps=2", "kernels.backend=cpu", model=model)
    assert checkpoints.read(tmp_path / "run/checkpoints/best.pt")["classes"] == list(small.CLASSES)
    assert isinstance(small.PARTS, Parts)
