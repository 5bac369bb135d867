"""Every layer beside its torch.nn twin: results, gradients, state, text and copies."""

import copy
import inspect
import io
import pickle

import pytest
import torch

import pycv.nn
from pycv import registry

# name, constructor arguments, input shape
LAYERS = [
    ("Conv1d", dict(in_channels=4, out_channels=6, kernel_size=3, padding=1, groups=2), (2, 4, 11)),
    ("Conv1d", dict(in_channels=4, out_channels=6, kernel_size=4, padding="same", bias=False), (4, 11)),
    ("Conv2d", dict(in_channels=3, out_channels=8, kernel_size=3, stride=2, padding=1), (2, 3, 9, 10)),
    ("Conv2d", dict(in_channels=3, out_channels=8, kernel_size=(3, 2), padding="same", dilation=2), (2, 3, 9, 10)),
    ("Conv2d", dict(in_channels=3, out_channels=8, kernel_size=3, padding="valid"), (3, 9, 10)),
    (
        "Conv2d",
        dict(in_channels=3, out_channels=4, kernel_size=3, padding=(1, 2), padding_mode="reflect"),
        (2, 3, 7, 8),
    ),
    ("Conv2d", dict(in_channels=3, out_channels=4, kernel_size=3, padding=1, padding_mode="replicate"), (2, 3, 7, 8)),
    (
        "Conv2d",
        dict(in_channels=3, out_channels=4, kernel_size=4, padding="same", padding_mode="circular"),
        (2, 3, 7, 8),
    ),
    ("Conv3d", dict(in_channels=2, out_channels=4, kernel_size=3, padding=(0, 1, 1)), (2, 2, 5, 6, 7)),
    ("ConvTranspose1d", dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, groups=2), (2, 4, 6)),
    ("ConvTranspose2d", dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, output_padding=1), (2, 4, 5, 6)),
    ("ConvTranspose2d", dict(in_channels=4, out_channels=6, kernel_size=3, dilation=2, bias=False), (4, 5, 6)),
    ("ConvTranspose3d", dict(in_channels=2, out_channels=3, kernel_size=2, stride=2, padding=1), (2, 2, 4, 5, 4)),
    ("Linear", dict(in_features=7, out_features=5), (3, 4, 7)),
    ("Linear", dict(in_features=7, out_features=5, bias=False), (7,)),
    ("ReLU", dict(), (2, 3, 5)),
    ("ReLU", dict(inplace=True), (2, 3, 5)),
    ("MaxPool1d", dict(kernel_size=3, stride=2), (2, 3, 11)),
    ("MaxPool2d", dict(kernel_size=3, stride=2, padding=1, ceil_mode=True), (2, 3, 9, 10)),
    ("MaxPool2d", dict(kernel_size=2, dilation=2, return_indices=True), (3, 9, 10)),
    ("MaxPool3d", dict(kernel_size=(1, 2, 2)), (2, 3, 4, 6, 6)),
    ("AvgPool1d", dict(kernel_size=3, padding=1, count_include_pad=False), (2, 3, 11)),
    ("AvgPool2d", dict(kernel_size=3, stride=2, padding=1, ceil_mode=True, divisor_override=5), (2, 3, 9, 10)),
    ("AvgPool3d", dict(kernel_size=2, divisor_override=3), (2, 3, 4, 6, 6)),
    ("AdaptiveAvgPool1d", dict(output_size=4), (2, 3, 11)),
    ("AdaptiveAvgPool2d", dict(output_size=(None, 3)), (2, 3, 9, 10)),
    ("AdaptiveAvgPool3d", dict(output_size=(1, 2, 3)), (2, 3, 4, 6, 6)),
    ("AdaptiveMaxPool1d", dict(output_size=4), (2, 3, 11)),
    ("AdaptiveMaxPool2d", dict(output_size=(3, None), return_indices=True), (2, 3, 9, 10)),
    ("AdaptiveMaxPool3d", dict(output_size=2), (2, 3, 4, 6, 6)),
    ("BatchNorm1d", dict(num_features=4), (6, 4)),
    ("BatchNorm1d", dict(num_features=4, momentum=None), (6, 4, 5)),
    ("BatchNorm2d", dict(num_features=4, momentum=0.3, eps=1e-3), (3, 4, 5, 6)),
    ("BatchNorm2d", dict(num_features=4, affine=False, track_running_stats=False), (3, 4, 5, 6)),
    ("BatchNorm3d", dict(num_features=3), (2, 3, 3, 4, 5)),
    ("LocalResponseNorm", dict(size=3, alpha=1e-2, beta=0.6, k=1.5), (2, 7, 4, 5)),
]


def _name(case):
    name, arguments, _ = case
    return f"{name}-" + ",".join(f"{key}={value}" for key, value in arguments.items() if "_features" not in key)


def _twins(name, arguments, dtype=torch.float64):
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(**arguments).to(dtype)
    ours = getattr(pycv.nn, name)(**arguments).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def _tensors(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("case", LAYERS, ids=_name)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_results_gradients_and_buffers_equal_torch(case, training):
    name, arguments, shape = case
    ours, theirs = _twins(name, arguments)
    ours.train(training), theirs.train(training)
    for step in range(2):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        with registry.record() as calls:
            # * 1: an in-place layer must not meet a leaf that requires grad
            mine, reference = _tensors(ours(inputs[0] * 1)), _tensors(theirs(inputs[1] * 1))
            grad = torch.randn(mine[0].shape, dtype=torch.float64)
            mine[0].backward(grad), reference[0].backward(grad)
        assert [c.choice.kernel.backend for c in calls if c.choice.kernel.backend != "cpu"] == []
        assert len(calls) >= 2
        for a, b in zip(mine, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-11)
    for (key, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", LAYERS, ids=_name)
def test_state_text_and_signature_are_torchs(case):
    name, arguments, _ = case
    ours, theirs = _twins(name, arguments)
    kind, twin = type(ours), type(theirs)
    assert repr(ours) == repr(theirs)
    assert inspect.signature(kind) == inspect.signature(twin)
    assert isinstance(ours, twin) and kind._version == twin._version and kind.__name__ == twin.__name__
    assert getattr(kind, "__constants__", None) == getattr(twin, "__constants__", None)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata
    theirs.load_state_dict(ours.state_dict())
    assert ours.__dict__.keys() == theirs.__dict__.keys()


@pytest.mark.parametrize("case", LAYERS, ids=_name)
def test_copies_pickles_and_saves(case):
    name, arguments, shape = case
    ours, _ = _twins(name, arguments)
    x = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        expected = _tensors(ours.eval()(x.clone()))
        saved = io.BytesIO()
        torch.save(ours, saved)
        saved.seek(0)
        for other in (
            copy.deepcopy(ours),
            copy.copy(ours),
            pickle.loads(pickle.dumps(ours)),
            torch.load(saved, weights_only=False),
        ):
            assert type(other) is type(ours)
            for a, b in zip(_tensors(other(x.clone())), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_output_size_of_a_transposed_convolution():
    ours, theirs = _twins("ConvTranspose2d", dict(in_channels=2, out_channels=3, kernel_size=3, stride=3))
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    for size in ([13, 14], [2, 3, 12, 12]):
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
    with pytest.raises(ValueError, match="output size"):
        ours(x, output_size=[20, 20])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv2d", dict(in_channels=3, out_channels=4, kernel_size=3, groups=2)),
        ("Conv2d", dict(in_channels=2, out_channels=4, kernel_size=3, padding="sane")),
        ("Conv2d", dict(in_channels=2, out_channels=4, kernel_size=3, padding="same", stride=2)),
        ("Conv2d", dict(in_channels=2, out_channels=4, kernel_size=3, padding_mode="mirror")),
        ("ConvTranspose1d", dict(in_channels=2, out_channels=4, kernel_size=3, padding_mode="reflect")),
    ],
)
def test_bad_arguments_raise_as_torch_does(name, arguments):
    with pytest.raises(ValueError) as theirs:
        getattr(torch.nn, name)(**arguments)
    with pytest.raises(ValueError) as ours:
        getattr(pycv.nn, name)(**arguments)
    assert str(ours.value) == str(theirs.value)


def test_batch_norm_with_one_value_per_channel_raises():
    with pytest.raises(ValueError, match="more than 1 value"):
        pycv.nn.BatchNorm2d(3)(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="expected 4D"):
        pycv.nn.BatchNorm2d(3)(torch.randn(2, 3, 4))


def test_sync_batchnorm_conversion_takes_our_layer():
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(pycv.nn.BatchNorm2d(3)))
    assert type(converted[0]) is torch.nn.SyncBatchNorm


def test_every_public_name_is_a_layer():
    for name in pycv.nn.__all__:
        assert issubclass(getattr(pycv.nn, name), getattr(torch.nn, name))
    assert {name for name, _, _ in LAYERS} == set(pycv.nn.__all__)
