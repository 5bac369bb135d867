"""pycv.patch and undo on models that people have: hooks, tied weights, copies, parametrizations, references."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrizations, prune

import pycv
from pycv import registry


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.act = nn.ReLU(inplace=True)
        self.block = Block(8)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(8 * 3 * 3, 5)

    def forward(self, x):
        return self._head(self.block(self.act(self.stem(x))))

    def _head(self, x):
        return _flat(self.head, self.drop(self.pool(torch.relu(x))))


def _flat(head, x):
    return head(x.relu_().flatten(1))


LAYERS = ["stem", "act", "block.conv", "block.norm", "pool", "head"]
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def _backends(run):
    with registry.record() as calls:
        result = run()
    return result, {call.choice.kernel.backend for call in calls}


def test_swaps_the_class_and_nothing_else(model):
    reference = copy.deepcopy(model)
    modules, parameters, state = list(model.modules()), list(model.parameters()), model.state_dict()
    handle = pycv.patch(model)
    assert handle.swapped == LAYERS
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == list(state) and repr(model) == repr(reference)
    assert isinstance(model.stem, nn.Conv2d) and type(model.stem) is pycv.nn.Conv2d
    result, backends = _backends(lambda: model(X))
    assert backends == {"cpu"}
    torch.testing.assert_close(result, reference(X), rtol=1e-4, atol=1e-5)
    result.sum().backward()
    reference(X).sum().backward()
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_undo_gives_everything_back(model):
    attributes = {name: set(module.__dict__) for name, module in model.named_modules()}
    handle = pycv.patch(model.eval())
    with torch.no_grad():
        model(X)
    handle.undo()
    handle.undo()
    assert [type(module) for module in model.modules()] == [type(module) for module in Net().modules()]
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == attributes
    _, backends = _backends(lambda: model(X))
    assert backends == set()


def test_says_what_it_left_and_which_calls_stay_on_torch(model):
    handle = pycv.patch(model)
    assert handle.left == {"drop": "pycv has no layer for Dropout"}
    assert dict(handle.functional) == {("block", "F.relu"): 1, ("", "torch.relu"): 1, ("", ".relu_"): 1}
    text = repr(handle)
    assert "Patch of Net: 6 layers swapped, 1 left on torch" in text
    assert "drop: pycv has no layer for Dropout" in text
    assert "F.relu in block" in text and "pycv.enable()" in text


def test_a_second_patch_undoes_only_what_it_did(model):
    first = pycv.patch(model)
    model.extra = nn.ReLU()
    second = pycv.patch(model)
    assert second.swapped == ["extra"]
    second.undo()
    assert type(model.extra) is nn.ReLU and type(model.stem) is pycv.nn.Conv2d
    first.undo()
    assert type(model.stem) is nn.Conv2d


def test_a_layer_on_its_own_and_no_layer_at_all():
    layer = nn.ReLU()
    assert pycv.patch(layer, functional=True).swapped == [""]
    assert type(layer) is pycv.nn.ReLU
    with pytest.raises(TypeError, match="function"):
        pycv.patch(F.relu)


def test_hooks_survive(model):
    seen = []
    model.block.conv.register_forward_pre_hook(lambda module, args: seen.append("pre"))
    model.block.conv.register_forward_hook(lambda module, args, out: out * 2)
    model.block.conv.register_full_backward_hook(lambda module, grad_input, grad_output: seen.append("backward"))
    reference = copy.deepcopy(model)
    handle = pycv.patch(model)
    out = model(X)
    torch.testing.assert_close(out, reference(X), rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert seen.count("backward") == 1 and seen.count("pre") == 2
    handle.undo()
    model(X)
    assert seen.count("pre") == 3


def test_tied_weights_and_shared_modules_stay_tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    model.append(model[1])
    handle = pycv.patch(model)
    assert model[2].weight is model[0].weight and model[3] is model[1]
    assert handle.swapped == ["0", "1", "2"]
    x = torch.randn(3, 6)
    model(x).sum().backward()
    grad = model[0].weight.grad.clone()
    handle.undo()
    model.zero_grad()
    model(x).sum().backward()
    torch.testing.assert_close(model[0].weight.grad, grad)


def test_references_held_elsewhere_see_the_patch(model):
    class Wrapper(nn.Module):  # as DataParallel and DistributedDataParallel hold their module
        def __init__(self, module):
            super().__init__()
            self.module = module
            self.device_ids = [module.stem]

        def forward(self, x):
            return self.module(x)

    wrapper = Wrapper(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    handle = pycv.patch(wrapper)
    assert handle.swapped == [f"module.{name}" for name in LAYERS]
    assert type(wrapper.device_ids[0]) is pycv.nn.Conv2d
    before = model.stem.weight.detach().clone()
    wrapper(X).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.stem.weight)


def test_data_parallel_replicas_do_not_share_prepared_weights(model):
    pycv.patch(model.eval())
    with torch.no_grad():
        model(X)
        replica = model.stem._replicate_for_data_parallel()
        replica.weight, replica.bias = model.stem.weight.detach() * 2, model.stem.bias.detach()
        torch.testing.assert_close(replica(X), F.conv2d(X, replica.weight, replica.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("functional", [False, True])
def test_copies_pickles_and_saves_stay_patched(model, functional):
    pycv.patch(model.eval(), functional=functional)
    with torch.no_grad():
        expected = model(X)
        saved = io.BytesIO()
        torch.save(model, saved)
        saved.seek(0)
        others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)]
        for other in others:
            assert type(other.stem) is pycv.nn.Conv2d and isinstance(other, Net) and repr(other) == repr(model)
            result, backends = _backends(lambda other=other: other(X))
            assert torch.equal(result, expected) and backends == {"cpu"}
            other.stem.weight.zero_()
            assert not torch.equal(other(X), expected)
        assert torch.equal(model(X), expected)


def test_state_dict_goes_both_ways(model):
    theirs = Net()
    pycv.patch(model)
    theirs.load_state_dict(model.state_dict())
    model.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(model.eval()(X), theirs.eval()(X), rtol=1e-4, atol=1e-5)


class Scaled(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def test_what_is_more_than_its_torch_class_is_left():
    model = nn.ModuleDict(
        {
            "subclass": Scaled(3, 4, 3),
            "parametrised": nn.Linear(4, 4),
            "spectral": parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
            "lazy": nn.LazyConv2d(4, 3),
            "script": torch.jit.script(nn.ReLU()),
            "replaced": nn.ReLU(),
            "observed": nn.Linear(4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "plain": nn.Linear(4, 4),
        }
    )
    nn.utils.parametrize.register_parametrization(model["parametrised"], "weight", Symmetric())
    model["replaced"].forward = lambda x: x
    model["observed"].qconfig = "any"
    types = {name: type(module) for name, module in model.named_modules()}
    handle = pycv.patch(model)
    assert handle.swapped == ["plain"]
    assert handle.left == {
        "subclass": "subclass of torch.nn.Conv2d",
        "parametrised": "parametrised",
        "spectral": "parametrised",
        "lazy": "lazy: has no weights before its first call",
        "script": "TorchScript",
        "replaced": "its forward was replaced on the instance",
        "observed": "quantised or prepared for it",
        "attention.out_proj": "subclass of torch.nn.Linear",
    }
    handle.undo()
    assert {name: type(module) for name, module in model.named_modules()} == types


def test_quantised_modules_are_left():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), {nn.Linear})
    handle = pycv.patch(model)
    assert handle.swapped == ["1"] and handle.left["0"] == "quantised or prepared for it"


def test_parametrization_registered_after_the_patch(model):
    handle = pycv.patch(model.eval())
    with torch.no_grad():
        model(X)
    nn.utils.parametrize.register_parametrization(model.head, "weight", nn.ReLU())
    with torch.no_grad():
        features = torch.randn(2, 72)
        expected = F.linear(features, model.head.weight, model.head.bias)
        torch.testing.assert_close(model.head(features), expected, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="head"):
        handle.undo()
    assert type(model.stem) is nn.Conv2d


def test_a_weight_made_by_a_hook(model):
    prune.random_unstructured(model.stem, "weight", 0.5)
    pycv.patch(model.eval())
    stem = model.stem
    assert type(stem) is pycv.nn.Conv2d
    with torch.no_grad():
        for _ in range(2):
            expected = F.conv2d(X, stem.weight_orig * stem.weight_mask, stem.bias)
            torch.testing.assert_close(stem(X), expected, rtol=1e-4, atol=1e-5)
            stem.weight_orig.mul_(1.5)


def test_functional_reaches_forward_and_undo_takes_it_back(model):
    reference = copy.deepcopy(model)
    handle = pycv.patch(model, functional=True)
    assert handle.functional == {} and "pycv.enable()" in repr(handle)
    assert isinstance(model, Net) and type(model).__name__ == "Net" and model.block.forward.__func__ is Block.forward
    with registry.record() as calls:
        result = model(X)
    assert sum(call.choice.problem.op == "relu" for call in calls) == 4
    torch.testing.assert_close(result, reference(X), rtol=1e-4, atol=1e-5)
    assert pycv.patch(model).functional == {}
    handle.undo()
    assert type(model) is Net
    with registry.record() as calls:
        model(X)
    assert calls == []


def test_functional_keeps_prepared_weights_and_leaves_no_mode_behind(model):
    pycv.patch(model.eval(), functional=True)
    with torch.no_grad():
        model(X)
        assert "_prepared_weights" in model.stem.__dict__
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 4, 8, 8))
    assert torch._C._len_torch_function_stack() == 0


def test_functional_with_a_replaced_forward_says_so(model):
    original = model.forward
    model.forward = lambda x: original(x)
    handle = pycv.patch(model, functional=True)
    assert handle.left[""] == "its forward was replaced on the instance"
    assert ("block", "F.relu") in handle.functional


def test_a_submodule_named_as_a_tensor_method_is_no_functional_call():
    """``self.relu(x)`` calls a layer; ``x.relu()`` in a function whose first parameter is the tensor does not."""

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = torch.nn.ReLU()

        def forward(self, x):
            return _clipped(self.relu(x))

    handle = pycv.patch(Named())
    assert handle.swapped == ["relu"] and dict(handle.functional) == {("", ".relu"): 1}


def _clipped(x):
    return x.relu()


def test_functional_leaves_a_forward_that_is_no_method():
    class Static(nn.Module):
        @staticmethod
        def forward(x):
            return F.relu(x)

    class Demanding(nn.Module):
        def __init_subclass__(cls, needed, **keywords):
            super().__init_subclass__(**keywords)

        def forward(self, x):
            return F.relu(x)

    x = torch.randn(3)
    for kind, reason in ((Static, "static or class method"), (Demanding, "needed")):
        model = kind()
        handle = pycv.patch(model, functional=True)
        assert reason in handle.left[""]
        torch.testing.assert_close(model(x), F.relu(x))


@pytest.mark.parametrize("functional", [False, True])
def test_torchscript_takes_the_layers_of_torch_and_says_so(functional):
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    model = nn.Sequential(*layers).eval()
    pycv.patch(model, functional=functional)
    x = torch.randn(2, 3, 6, 6)
    with pytest.warns(UserWarning, match="script a copy"):
        scripted = torch.jit.script(copy.deepcopy(model))
    torch.testing.assert_close(scripted(x), model(x))
    assert type(model[0]) is pycv.nn.Conv2d
