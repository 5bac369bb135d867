"""Losses, parameter groups, schedules, the moving average: each against its formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pycv import models
from pycv.train import average, losses, optimizers, recipe, schedules
from pycv.train.losses import CrossEntropy, MultiTask, SquaredError, Task, WithAuxiliary
from pycv.train.recipe import Optim, Schedule

SCORES = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([2, 1])


def test_cross_entropy_is_that_of_its_formula():
    share = torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.8, 0.1]], dtype=torch.float64)  # 0.3 smoothed over three classes
    wanted = -(share * SCORES.log_softmax(1)).sum(1).mean()
    assert CrossEntropy(0.3)(SCORES, LABELS).item() == pytest.approx(wanted.item(), abs=1e-7)
    assert CrossEntropy()(SCORES, share).item() == pytest.approx(wanted.item(), abs=1e-12)
    assert torch.allclose(CrossEntropy(0.3).each(SCORES, LABELS), -SCORES.log_softmax(1)[[0, 1], LABELS])
    assert torch.allclose(CrossEntropy().probabilities(SCORES).sum(1), torch.ones(2, dtype=torch.float64))


def test_squared_error_is_that_of_its_formula():
    wanted = (1.0 + 4 + 0.25 + 0 + 4 + 1) / 2
    assert SquaredError()(SCORES, LABELS).item() == pytest.approx(wanted)
    assert SquaredError()(SCORES, functional.one_hot(LABELS, 3).double()).item() == pytest.approx(wanted)
    assert SquaredError().each(SCORES, LABELS).tolist() == [5.25, 5.0]
    assert SquaredError().probabilities(SCORES).tolist() == [[1, 0, 0.5], [0, 1, 0]]


def test_an_ensemble_averages_probabilities():
    combined = CrossEntropy().combined([SCORES, -SCORES])
    wanted = (SCORES.softmax(1) + (-SCORES).softmax(1)) / 2
    assert torch.allclose(combined.exp(), wanted) and torch.allclose(combined.softmax(1), wanted)
    assert torch.equal(SquaredError().combined([SCORES, SCORES + 2]), SCORES + 1)


def test_auxiliary_heads_weigh_less_and_rest_in_evaluation():
    loss = WithAuxiliary(CrossEntropy(), 0.3)
    outputs = models.GoogLeNetOutputs(SCORES, 2 * SCORES, 3 * SCORES)
    parts = [CrossEntropy()(k * SCORES, LABELS).item() for k in (1, 2, 3)]
    assert loss(outputs, LABELS).item() == pytest.approx(parts[0] + 0.3 * (parts[1] + parts[2]))
    assert loss(SCORES, LABELS).item() == pytest.approx(parts[0])
    assert loss.scores(outputs) is SCORES and torch.equal(
        loss.each(SCORES, LABELS), CrossEntropy().each(SCORES, LABELS)
    )


def test_several_tasks_sum_with_their_weights():
    parity = torch.tensor([0, 1, 0])
    tasks = MultiTask({"class": Task(CrossEntropy()), "parity": Task(SquaredError(), 0.5, parity)})
    outputs = {"class": SCORES, "parity": SCORES[:, :2]}
    wanted = CrossEntropy()(SCORES, LABELS) + 0.5 * SquaredError()(SCORES[:, :2], parity[LABELS])
    assert tasks(outputs, LABELS).item() == pytest.approx(wanted.item())
    shares = torch.tensor([[0.5, 0.0, 0.5], [0.25, 0.75, 0.0]], dtype=torch.float64)
    assert tasks.tasks["parity"].targets(shares).tolist() == [[1, 0], [0.25, 0.75]]
    assert tasks.scores(outputs) is SCORES
    with pytest.raises(ValueError, match="the network gives no 'parity', only 'class'"):
        tasks({"class": SCORES}, LABELS)
    with pytest.raises(ValueError, match="expected one at least"):
        MultiTask({})


# ------------------------------------------------------------------------------------------------ optimizers


def groups_of(model: nn.Module, **options) -> dict[str, tuple[float, float]]:
    """By parameter: weight decay and share of the rate."""
    optimizer = optimizers.build(Optim(**options), model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(p)]: (group["weight_decay"], group["scale"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_groups_by_decay_and_layer():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))
    found = groups_of(model, weight_decay=0.1, decay_all=False, layer_decay=0.5)
    assert found == {
        "0.weight": (0.1, 0.25), "0.bias": (0.0, 0.25), "1.weight": (0.0, 0.5), "1.bias": (0.0, 0.5),
        "2.weight": (0.1, 1.0), "2.bias": (0.0, 1.0),
    }  # fmt: skip
    assert set(groups_of(model, weight_decay=0.1).values()) == {(0.1, 1.0)}
    model[0].requires_grad_(False)
    assert set(groups_of(model)) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        groups_of(model.requires_grad_(False))


def test_tied_parameters_are_in_one_group():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    assert len(groups_of(nn.Sequential(one, other), layer_decay=0.5)) == 3


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop", "adam", "adamw"])
def test_every_optimizer_goes_downhill_and_obeys_the_rate(name):
    weight = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    model = nn.Linear(2, 1, bias=False)
    model.weight = weight
    optimizer = optimizers.build(Optim(name=name, lr=1.0, l1=0.1), model)
    optimizers.set_rate(optimizer, 0.0)
    weight.square().sum().backward()
    optimizer.step()
    assert weight.tolist() == [[2.0, -3.0]]
    optimizers.set_rate(optimizer, 0.05)
    optimizer.step()
    assert 0 < weight[0, 0] < 2 and -3 < weight[0, 1] < 0


def test_l1_adds_the_sign():
    weight = nn.Parameter(torch.tensor([[2.0, 0.0, -3.0]]))
    model = nn.Linear(3, 1)
    model.weight = weight
    optimizer = optimizers.build(Optim(decay_all=False), model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.add_l1(optimizer, 0.5)
    assert weight.grad.tolist() == [[1.5, 1.0, 0.5]] and model.bias.grad.tolist() == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"betas": (0.9,)}, "optim.betas"), ({"nesterov": True, "momentum": 0.0}, "optim.nesterov=true: needs")],
)
def test_optimizers_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optimizers.build(Optim(**options), nn.Linear(1, 1))


# -------------------------------------------------------------------------------------------------- schedules


def shares(epochs: int = 10, epoch: int = 10, **options) -> list[float]:
    schedule = schedules.build(Schedule(**options), epochs, epoch)
    return [schedule.share(step) for step in range(epochs * epoch)]


def test_schedules():
    assert set(shares(name="constant")) == {1.0}
    step = shares(name="step", milestones=(3, 7))
    assert step[29] == 1 and step[30] == pytest.approx(0.1) and step[70] == pytest.approx(0.01)
    cosine = shares(name="cosine", floor=0.2)
    assert cosine[0] == 1 and cosine[50] == pytest.approx(0.6) and 0.2 < cosine[99] < 0.21
    assert cosine == sorted(cosine, reverse=True)
    cycle = shares(name="one_cycle", rise=0.2)
    assert cycle.index(max(cycle)) in (19, 20) and cycle[0] == pytest.approx(0.05) and cycle[99] < 0.001
    assert cycle[60] == pytest.approx(0.5)


def test_momentum_falls_while_the_rate_rises():
    """Down and up between the bounds of torch's OneCycleLR, whose fall and rise are the same half cosine."""
    wanted = Schedule(name="one_cycle", rise=0.2, floor=0.1, warm_up=1)
    built = schedules.build(wanted, 11, 10)
    found = [built.momentum(step) for step in range(110)]
    assert found[:11] == pytest.approx([0.945] * 11) and found[10:30] == sorted(found[10:30], reverse=True)
    assert found[29] == found[30] == pytest.approx(0.85) and found[109] == pytest.approx(0.95, abs=1e-4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=101, pct_start=21 / 101)
    for step in range(101):
        if step >= 20:
            at = 30 + (step - 20)  # both at the peak, and 80 steps to fall
            assert at == 110 or optimizer.param_groups[0]["momentum"] == pytest.approx(found[at])
        optimizer.step()
        if step < 100:
            theirs.step()
    assert schedules.build(Schedule(name="one_cycle", momentum=()), 5, 5).momentum(3) is None
    assert schedules.build(Schedule(name="cosine"), 5, 5).momentum(3) is None
    with pytest.raises(ValueError, match=r"schedule.momentum=\[0.95, 0.85\]: expected its lowest"):
        shares(name="one_cycle", momentum=(0.95, 0.85))


@pytest.mark.parametrize(("options", "key", "value"), [
    ({"name": "sgd"}, "momentum", 0.85), ({"name": "sgd", "momentum": 0.0}, "momentum", 0.0),
    ({"name": "adamw", "betas": (0.9, 0.99)}, "betas", (0.85, 0.99)), ({"name": "adagrad"}, "momentum", None),
])  # fmt: skip
def test_momentum_is_set_where_there_is_one(options, key, value):
    optimizer = optimizers.build(Optim(**options), nn.Linear(1, 1))
    for momentum in (0.95, 0.0, 0.85):
        optimizers.set_momentum(optimizer, momentum)
    assert optimizer.param_groups[0].get(key) == value


def test_warm_up_rises_to_what_follows():
    found = shares(name="cosine", warm_up=2)
    assert found[:3] == pytest.approx([0.05, 0.1, 0.15]) and found[19] == 1 and found[20] == 1 and found[21] < 1
    assert found[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
    stepped = shares(name="step", warm_up=1, milestones=(2,))
    assert stepped[9] == 1 and stepped[19] == 1 and stepped[20] == pytest.approx(0.1)


def test_plateau_drops_when_nothing_gets_better_and_remembers():
    schedule = schedules.build(Schedule(name="plateau", patience=1, factor=0.5), 10, 10)
    found = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8):
        schedule.validated(loss)
        found.append(schedule.share(0))
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    other = schedules.build(Schedule(name="plateau", patience=1, factor=0.5), 10, 10)
    other.load_state_dict(schedule.state_dict())
    assert other == schedule


def test_schedules_that_are_refused():
    with pytest.raises(ValueError, match=r"schedule.milestones=\[\]"):
        shares(name="step")
    with pytest.raises(ValueError, match=r"schedule\.warm_up=10"):
        shares(name="cosine", warm_up=10)


def test_the_average_follows():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    followed = average.Average(model, 0.5)
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(3)
    followed.follow(model, 1)  # decay min(0.5, 2 / 11)
    for key, value in followed.model.state_dict().items():
        moved = 3 if key.endswith("num_batches_tracked") else 3 * (1 - 2 / 11)
        assert torch.allclose(value.double(), start[key].double() + moved), key
    before = copy.deepcopy(followed.model.state_dict())
    followed.follow(model, 1000)
    key = "0.weight"
    assert torch.allclose(followed.model.state_dict()[key], (before[key] + model.state_dict()[key]) / 2)
    assert not any(parameter.requires_grad for parameter in followed.model.parameters())


def test_losses_of_recipes():
    built = losses.build(recipe.Loss("squared_error", 0.1, 0.4))
    assert built == WithAuxiliary(SquaredError(0.1), 0.4)
    assert losses.build(recipe.load("googlenet").loss) == WithAuxiliary(CrossEntropy(), 0.3)
    assert losses.build(recipe.load("inception-v3").loss) == WithAuxiliary(CrossEntropy(0.1), 0.4)
