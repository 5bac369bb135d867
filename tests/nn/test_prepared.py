"""Prepared weights: kept where they may be, dropped whenever the weight may have changed.

The plan below packs a weight into twice its value, so that a result tells whether the prepared weight was used, and of
which state of the weight it is.
"""

import copy
import ctypes
import gc
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pycv
from pycv.nn import conv as conv_layers
from pycv.nn import prepared
from pycv.nn.prepared import PreparedWeights, kept_bytes


class DoublingPlan:
    """prepare_weight writes 2 * weight, and counts."""

    def __init__(self, count):
        self.prepared_weight_bytes = 4 * count
        self.count = count
        self.prepared = 0

    def prepare_weight(self, weight, buffer):
        source, target = (
            np.frombuffer((ctypes.c_float * self.count).from_address(p), np.float32) for p in (weight, buffer)
        )
        target[:] = 2 * source
        self.prepared += 1


def _choice(weight):
    return SimpleNamespace(plan=DoublingPlan(weight.numel()))


@pytest.fixture
def layer(monkeypatch):
    """A Conv2d whose op takes the prepared weight, halved, if there is one, and the weight itself otherwise."""
    choices = {}

    def op(rank, input, weight, bias, stride, padding, dilation, groups, prepared=None):
        choice = choices.setdefault((input.shape, weight.stride()), _choice(weight))
        kept = prepared.get(weight, choice) if prepared is not None else None
        if kept is not None:
            weight = kept.view(torch.float32).as_strided(weight.shape, weight.stride()) / 2
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)

    monkeypatch.setattr(conv_layers, "conv", op)
    layer = pycv.nn.Conv2d(16, 24, 3).eval()
    layer.prepared_count = lambda: sum(choice.plan.prepared for choice in choices.values())
    return layer


X = torch.randn(1, 16, 6, 6)


def _stored(layer):
    store = layer.__dict__.get("_prepared_weights")
    return 0 if store is None else store.nbytes


def _check(layer, x=X):
    """The layer's result is that of its weight as it is now."""
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias))


def test_is_kept_in_eval_mode_without_grad(layer):
    for _ in range(3):
        _check(layer)
    assert layer.prepared_count() == 1
    assert _stored(layer) == 4 * layer.weight.numel()
    with torch.inference_mode():
        layer(X)
    assert layer.prepared_count() == 1


def test_is_not_made_with_grad_or_in_training(layer):
    layer(X)
    layer.train()
    with torch.no_grad():
        layer(X)
    assert layer.prepared_count() == 0 and _stored(layer) == 0


@pytest.mark.parametrize("small", [False, True], ids=["sampled", "whole"])
@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.data.mul_(1.5),
        lambda p: p.data.copy_(torch.randn(p.shape)),
        lambda p: p.data.zero_(),
        lambda p: p.detach().numpy().__imul__(3),
        lambda p: p.detach().numpy().fill(0.25),
        lambda p: torch.from_numpy(p.detach().numpy()).neg_(),
        lambda p: p.detach().add_(1),
    ],
    ids=["data.mul_", "data.copy_", "data.zero_", "numpy*=", "numpy.fill", "from_numpy", "detach.add_"],
)
def test_uncounted_writes_to_the_whole_weight_are_noticed(layer, write, small):
    if small:
        layer.weight = torch.nn.Parameter(layer.weight.detach()[:4].clone())
        layer.bias = None
    _check(layer)
    write(layer.weight)
    _check(layer)


def test_one_uncounted_element_of_a_small_weight_is_noticed(layer):
    layer.weight = torch.nn.Parameter(torch.randn(2, 16, 3, 3))
    layer.bias = None
    assert layer.weight.nbytes <= prepared.FULL_CHECK_BYTES
    for index in np.ndindex(2, 16, 3, 3):
        if np.dot(index, (1, 3, 5, 7)) % 31 == 0:
            _check(layer)
            layer.weight.data[index] += 1
            _check(layer)


def test_samples_meet_every_tap_and_spread_over_the_channels():
    weight = torch.nn.Parameter(torch.arange(64 * 64 * 9, dtype=torch.float32).view(64, 64, 3, 3))
    sampled = torch.tensor(prepared._watched_elements(weight).view(np.float32)).long()
    assert len(sampled) >= prepared.SAMPLES
    assert set((sampled % 9).tolist()) == set(range(9))
    assert len(set((sampled // (64 * 9)).tolist())) >= 30
    assert len(set((sampled // 9 % 64).tolist())) >= 25


def test_counted_writes_and_replaced_parameters_are_noticed(layer):
    _check(layer)
    with torch.no_grad():
        layer.weight[3, 2, 1, 0] = 7.0
    _check(layer)
    layer.weight = torch.nn.Parameter(torch.randn_like(layer.weight))
    _check(layer)
    layer.weight.data = torch.randn_like(layer.weight)
    _check(layer)
    layer.weight.data = layer.weight.data.flip(0).transpose(2, 3)
    _check(layer)


def test_swaps_of_an_average_are_noticed(layer):
    averaged = torch.randn_like(layer.weight)
    _check(layer)
    for _ in range(2):  # by pointer, there and back
        layer.weight.data, averaged = averaged, layer.weight.data
        _check(layer)
    for _ in range(2):  # by value
        kept = layer.weight.data.clone()
        layer.weight.data.copy_(averaged)
        averaged.copy_(kept)
        _check(layer)


def test_functional_call_sees_its_own_weights(layer):
    _check(layer)
    other = {"weight": torch.randn_like(layer.weight), "bias": torch.randn_like(layer.bias)}
    with torch.no_grad():
        torch.testing.assert_close(
            torch.func.functional_call(layer, other, X), F.conv2d(X, other["weight"], other["bias"])
        )
    _check(layer)


@pytest.mark.parametrize(
    "drop",
    [
        lambda m: m.train(),
        lambda m: m.to(torch.float64),
        lambda m: m.float(),
        lambda m: m.load_state_dict({k: torch.randn_like(v) for k, v in m.state_dict().items()}),
        lambda m: m.load_state_dict({k: torch.randn_like(v) for k, v in m.state_dict().items()}, assign=True),
        lambda m: pycv.invalidate(m),
    ],
    ids=["train", "to", "float", "load_state_dict", "load_state_dict-assign", "invalidate"],
)
def test_is_dropped_on(layer, drop):
    model = torch.nn.Sequential(layer)
    _check(layer)
    assert _stored(layer) > 0
    drop(model)
    assert _stored(layer) == 0
    model.float().eval()
    _check(layer)


def test_eval_mode_again_keeps_it(layer):
    _check(layer)
    layer.eval()
    _check(layer)
    assert layer.prepared_count() == 1


def test_copies_and_pickles_hold_none(layer):
    _check(layer)
    del layer.prepared_count
    for other in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert "_prepared_weights" not in other.__dict__
        _check(other)
    assert "_prepared_weights" not in layer.state_dict()
    store = layer.__dict__["_prepared_weights"]
    assert store.nbytes > 0
    assert copy.deepcopy(store).nbytes == 0 and pickle.loads(pickle.dumps(store)).nbytes == 0


def test_none_for_weights_that_are_no_plain_parameters():
    weight = torch.randn(8, 4, 3, 3)
    with torch.inference_mode():
        inference = torch.nn.Parameter(torch.randn(8, 4, 3, 3), requires_grad=False)
    strided = torch.nn.Parameter(torch.randn(8, 4, 3, 6)[..., ::2])
    subclass = type("Sub", (torch.nn.Parameter,), {})(weight)
    for unkeepable in (
        weight,
        torch.nn.Parameter(weight) * 1,
        inference,
        strided,
        subclass,
        torch.nn.Parameter(weight[:0]),
    ):
        assert PreparedWeights().get(unkeepable, _choice(unkeepable)) is None


def test_other_objects_and_orders_on_the_same_memory_are_other_weights():
    store, weight = PreparedWeights(), torch.nn.Parameter(torch.randn(16, 16, 3, 3))
    choice = _choice(weight)
    kept = store.get(weight, choice)
    assert kept is not None and store.get(weight, choice) is kept
    assert store.get(weight.data, choice) is None
    other = torch.nn.Parameter(weight.data)
    assert store.get(other, choice) is not kept
    kept = store.get(weight, choice)
    weight.data = weight.data.transpose(0, 1)
    assert store.get(weight, choice) is not kept


def test_inference_tensors_run_unprepared(layer):
    with torch.inference_mode():
        layer.weight = torch.nn.Parameter(torch.randn(24, 16, 3, 3), requires_grad=False)
        for _ in range(2):
            torch.testing.assert_close(layer(X), F.conv2d(X, layer.weight, layer.bias))
    assert layer.prepared_count() == 0


def test_channels_last_weight_is_kept(layer):
    layer.to(memory_format=torch.channels_last)
    choice = _choice(layer.weight)
    store = PreparedWeights()
    assert store.get(layer.weight, choice) is store.get(layer.weight, choice)
    assert choice.plan.prepared == 1
    layer.weight.data.mul_(2)
    store.get(layer.weight, choice)
    assert choice.plan.prepared == 2


def test_reused_storage_is_not_taken_for_the_old_weight():
    store = PreparedWeights()
    weight = torch.nn.Parameter(torch.randn(64, 64, 3, 3))
    choice = _choice(weight)
    store.get(weight, choice)
    address = weight.data_ptr()
    for _ in range(20):  # without the entry's hold on the storage the allocator would hand the same block out again
        del weight
        weight = torch.nn.Parameter(torch.randn(64, 64, 3, 3))
        assert weight.data_ptr() != address
        buffer = store.get(weight, choice)
        torch.testing.assert_close(buffer.view(torch.float32).view(weight.shape), 2 * weight.detach())
        address = weight.data_ptr()


def test_the_weights_storage_stays_resizable(layer):
    _check(layer)
    storage = layer.weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    with torch.no_grad():
        layer.weight.copy_(torch.randn_like(layer.weight))
    _check(layer)
    torch.utils.swap_tensors(layer.weight, torch.nn.Parameter(torch.randn_like(layer.weight)))
    _check(layer)


def test_the_limit_holds_for_all_layers_together(layer):
    gc.collect()
    size = 4 * layer.weight.numel()
    other = copy.deepcopy(layer)
    with pycv.use(weight_cache_limit=kept_bytes() + size + 100):
        _check(layer)
        assert _stored(layer) == size
        _check(other)
        assert _stored(other) == 0
        pycv.invalidate(layer)
        _check(other)
        assert _stored(other) == size
    with pytest.raises(ValueError, match="weight_cache_limit=-1"):
        pycv.set_default(weight_cache_limit=-1)


def test_inputs_of_many_sizes_keep_a_bounded_number(layer):
    before = kept_bytes()
    for size in range(5, 15):
        _check(layer, torch.randn(1, 16, size, size))
    assert _stored(layer) <= prepared.MAX_PLANS * 4 * layer.weight.numel()
    assert kept_bytes() - before == _stored(layer)
    layer.weight.data.mul_(2)
    _check(layer)
    assert _stored(layer) == 4 * layer.weight.numel()  # what the old weight was prepared into is gone


def test_threads_share_a_layer(layer):
    failures = []

    def infer():
        try:
            with torch.no_grad():
                for _ in range(200):
                    torch.testing.assert_close(layer(X), expected)
        except AssertionError as error:
            failures.append(error)

    with torch.no_grad():
        expected = F.conv2d(X, layer.weight, layer.bias)
    threads = [threading.Thread(target=infer) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pycv.invalidate(layer)
    assert not failures


def test_a_freed_layer_gives_its_bytes_back(layer):
    gc.collect()
    before = kept_bytes()
    other = copy.deepcopy(layer)
    _check(other)
    assert kept_bytes() == before + _stored(other) > before
    del other
    gc.collect()
    assert kept_bytes() == before


def test_real_layers_follow_their_weights():
    """Without a stand-in: whatever the kernels prepare, the result is that of the weight as it is."""
    model = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3), torch.nn.Flatten(), torch.nn.Linear(512, 40)).eval()
    reference = copy.deepcopy(model)
    pycv.patch(model)
    with torch.no_grad():
        for _ in range(4):
            torch.testing.assert_close(model(X), reference(X), rtol=1e-4, atol=1e-4)
            for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
                mine.data.mul_(1.25)
                theirs.data.mul_(1.25)


def test_a_weight_that_got_the_id_of_a_dead_one_is_another():
    """Same storage, shape and version; they differ in an element that is not sampled."""
    data, seen = torch.randn(64, 64, 3, 3), 0
    for _ in range(50):
        store, choice = PreparedWeights(), _choice(data)
        weight = torch.nn.Parameter(data, requires_grad=False)
        weight[0, 0, 0, 0] += 1
        store.get(weight, choice)
        first = id(weight)
        del weight
        weight = torch.nn.Parameter(data, requires_grad=False)
        seen += id(weight) == first
        weight[3, 5, 1, 1] += 1
        kept = store.get(weight, choice)
        assert torch.equal(kept.view(torch.float32).view_as(data), 2 * data)
    assert seen == 0  # the entry holds what it was made from


def test_invalidate_wants_a_module():
    with pytest.raises(TypeError, match=r"model='NoneType': expected a torch\.nn\.Module"):
        pycv.invalidate(None)
