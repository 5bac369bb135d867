"""The demo: its data, its training, and the files that it leaves."""

import json
from dataclasses import replace

import pytest
import torch

import pycv
from pycv import demo, registry
from pycv.bench import report
from pycv.demo import data, run, training
from pycv.models import LeNet5

PICTURES = {"curves.png", "filters.png", "feature_maps.png", "misclassified.png", "confusion_matrix.png"}


@pytest.fixture(scope="module")
def digits():
    return data.load_digits()


# ---------------------------------------------------------------------------------------------- data


def test_digits(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert digits.labels.unique().tolist() == list(range(10))


def test_split_is_disjoint_stratified_and_fixed_by_its_seed(digits):
    numbered = data.Digits(torch.arange(1797.0).view(-1, 1, 1, 1), digits.labels)
    split, again, other = (data.split_digits(numbered, seed) for seed in (3, 3, 4))
    parts = [split.train, split.validation, split.test]
    assert torch.equal(torch.cat([part.images.flatten() for part in parts]).sort().values, torch.arange(1797.0))
    shares = digits.labels.bincount() / 1797
    for part in parts:
        assert len(part) >= 269
        assert ((part.labels.bincount(minlength=10) - shares * len(part)).abs() < 1).all()
        assert torch.equal(part.labels, digits.labels[part.images.flatten().long()])
    assert torch.equal(split.test.images, again.test.images)
    assert not torch.equal(split.test.images.sort(0).values, other.test.images.sort(0).values)


def test_upsampling_is_bilinear(digits):
    """A point of the 32×32 image between four pixels of the 8×8 one is their bilinear mean."""
    images, (row, column) = digits.images[:5], (11, 20)
    y, x = (((2 * at + 1) / 32 - 1) * data.MARGIN * 4 + 3.5 for at in (row, column))
    top, left = int(y), int(x)
    v, u = y - top, x - left
    p = images[:, 0, top : top + 2, left : left + 2]
    expected = (p[:, 0, 0] * (1 - u) + p[:, 0, 1] * u) * (1 - v) + (p[:, 1, 0] * (1 - u) + p[:, 1, 1] * u) * v
    sampled = data.upsampled(images)
    assert sampled.shape == (5, 1, 32, 32)
    torch.testing.assert_close(sampled[:, 0, row, column] * data.DEVIATION + data.MEAN, expected, rtol=1e-4, atol=1e-5)


def test_upsampled_digits_are_standardised(digits):
    sampled = data.upsampled(digits.images)
    assert abs(sampled.mean()) < 0.05
    assert abs(sampled.std() - 1) < 0.05


def test_augmentation(digits):
    images, still = digits.images[:64], data.Augmentation(rotation=0, shift=0, scale=0, shear=0)
    seeded = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    torch.testing.assert_close(data.augmented(images, still, seeded[2]), data.upsampled(images))
    first, again, other = (data.augmented(images, data.Augmentation(), generator) for generator in seeded)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first - data.upsampled(images)).abs().amax((1, 2, 3)).min() > 0.1  # every image is bent

    def correlation(how):
        bent = data.augmented(images, how, torch.Generator().manual_seed(0))
        return torch.corrcoef(torch.stack([bent.flatten(), data.upsampled(images).flatten()]))[0, 1]

    for name in ("rotation", "shift", "scale", "shear"):
        full = getattr(data.Augmentation(), name)
        slight, strong = (correlation(replace(still, **{name: share * full})) for share in (0.2, 1.0))
        assert 0.6 < strong < slight < 1, name


# ---------------------------------------------------------------------------------------------- training


def test_schedule_rises_then_falls_to_nothing():
    rates = [training.one_cycle(step, 100) for step in range(100)]
    top = rates.index(max(rates))
    assert max(rates) == 1 and 10 <= top <= 20
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] < 0.1 and rates[-1] < 0.01


def test_training_needs_no_test_digits_and_keeps_the_best_epoch(digits):
    split = replace(data.split_digits(digits, 0), test=None)
    torch.manual_seed(0)
    seen = []
    with pycv.use(backend="cpu"):
        trained = training.train(LeNet5(), split, training.Recipe(epochs=2), 0, lambda *args: seen.append(args))
        loss, accuracy = training.evaluate(trained.model, split.validation)
    assert [number for number, _ in seen] == [0, 1]
    assert [epoch for _, epoch in seen] == trained.epochs
    assert trained.best.validation_accuracy == max(epoch.validation_accuracy for epoch in trained.epochs)
    assert accuracy == trained.best.validation_accuracy > 0.5
    assert loss == pytest.approx(trained.best.validation_loss, rel=1e-4)
    assert trained.epochs[-1].train_loss < trained.epochs[0].train_loss


def test_every_kernel_is_pycvs_and_a_seed_gives_one_outcome():
    recipe = training.Recipe(epochs=1)
    with registry.record() as calls:
        first = training.learn_digits(recipe, 5)
    ran = {(call.choice.problem.op, call.choice.problem.pass_) for call in calls}
    assert {call.choice.kernel.backend for call in calls} == {"cpu"}
    forward = {op for op, pass_ in ran if pass_ == "forward"}
    assert {"conv2d", "max_pool2d", "relu"} <= forward and any("gemm" in op or "linear" in op for op in forward)
    assert {("conv2d", "grad_weight"), ("conv2d", "grad_input"), ("max_pool2d", "grad_input")} <= ran
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert training.learn_digits(recipe, 5).trained.epochs == first.trained.epochs
    assert torch.equal(torch.get_rng_state(), random_state)  # what the process shares is left alone
    assert torch.get_num_threads() == threads


@pytest.mark.full
def test_learns_the_digits():
    """One seed of the recorded ten, whose mean is 98.5 % at least."""
    assert training.learn_digits(training.Recipe(), 0).test_accuracy > 0.975


# ---------------------------------------------------------------------------------------------- files


def test_demo_leaves_metrics_and_pictures(tmp_path, capsys):
    folder = tmp_path / "new" / "demo"
    assert demo.main(["--quick", "--epochs", "1", "--seed", "7", "--out", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == PICTURES | {"metrics.json"}
    for name in PICTURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["test_accuracy"] <= 1
    assert (metrics["seed"], metrics["epochs"], len(metrics["history"])) == (7, 1, 1)
    assert sum(metrics["digits"].values()) == 1797
    report.validate(metrics["kernels"])
    assert {row["contender"] for row in metrics["kernels"]["rows"]} == {"pycv", "torch:nchw"}
    printed = capsys.readouterr().out
    assert f"test accuracy {metrics['test_accuracy']:.2%}" in printed
    assert str(pycv.info()).splitlines()[0] in printed
    for layer in ("c1", "s2", "c3", "s4", "c5", "f6", "output"):
        assert layer in printed
    assert "; 0 on torch" in printed  # the last line of explain


def test_interrupted_demo_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    (tmp_path / "metrics.json").write_text("old")
    monkeypatch.setattr(run, "learn_digits", interrupted)
    assert demo.main(["--out", str(tmp_path)]) == 130
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("metrics.json", "old")]
    assert "interrupted" in capsys.readouterr().err


def test_files_are_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(TypeError):
        run.write_whole(tmp_path, {"a": b"new", "b": None})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]
    run.write_whole(tmp_path, {"a": b"new", "b": b"new"})
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [("a", "new"), ("b", "new")]


def test_unusable_folder_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert demo.main(["--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--epochs=0", "--epochs=2.5", "--epochs=many", "--seed=-1", "--seed=4294967296"])
def test_bad_numbers_are_refused(option, capsys):
    with pytest.raises(SystemExit) as error:
        demo.main([option])
    assert error.value.code == 2
    name, text = option.split("=")
    assert f"{name}: '{text}': expected a whole number" in capsys.readouterr().err


def test_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(run.EXTRAS, "scikit-nothing", "sknothing")
    assert demo.main([]) == 1
    assert "pip install scikit-nothing" in capsys.readouterr().err
