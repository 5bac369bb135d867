"""Every sample and every error input that torch itself tests its convolutions with."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.common_methods_invocations import op_db

import pycv
from pycv import functional as PF
from pycv import registry

from ..backend import BACKEND, DEVICE
from ..seed import sliced
from .agreement import assert_agrees, outcome

NAMES = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
OPS = {op.name.removeprefix("nn.functional."): op for op in op_db if op.name.startswith("nn.functional.conv")}
ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def tensors_and_arguments(sample):
    """(input, weight, bias) and the other arguments by name."""
    tensors = [sample.input, *sample.args, *[None] * 3][:3]
    names = ("stride", "padding", "dilation", "groups")
    arguments = dict(zip(names, sample.args[2:], strict=False)) | sample.kwargs
    if "bias" in arguments:
        tensors[2] = arguments.pop("bias")
    return tensors, arguments


def every_sample(dtype):
    """The name of the op and the sample's number, tensors and arguments."""
    for name in NAMES:
        for i, sample in enumerate(OPS[name].sample_inputs(DEVICE, dtype)):
            yield name, i, *tensors_and_arguments(sample)


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_samples(name, dtype, algorithm):
    samples = list(OPS[name].sample_inputs(DEVICE, dtype))
    assert len(samples) >= 10
    for i, sample in enumerate(samples):
        tensors, arguments = tensors_and_arguments(sample)
        shapes = [None if t is None else list(t.shape) for t in tensors]
        with pycv.use(backend=BACKEND, algorithm=algorithm):
            assert_agrees(
                getattr(PF, name), getattr(F, name), tensors, arguments,
                grad_output=torch.randn_like, message=f"{name} sample {i} {shapes} {arguments}",
            )  # fmt: skip


# Those that do not take every convolution, so that they can only be preferred.
OTHERS = {
    kernel.full_algorithm: kernel.numeric_class
    for kernel in registry.kernels()
    if kernel.backend == "cpu" and kernel.op.startswith("conv") and kernel.algorithm not in ("direct", "im2col")
}


@pytest.mark.skipif(BACKEND != "cpu", reason="names algorithms of the C++ kernels")
@pytest.mark.parametrize(
    "algorithm, dtype",
    sliced(product(OTHERS, (torch.float32, torch.float64)), 6, id=lambda case: f"{case[0]}-{case[1]}"),
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_samples_of_algorithms_for_some_problems(algorithm, dtype):
    """Wherever it takes one of the three passes of a sample; the other passes run on any of pycv's kernels."""
    settings = {"backend": BACKEND, "prefer": algorithm, "precision": "fast"}
    with registry.record() as calls:
        for name, i, tensors, arguments in every_sample(dtype):
            with pycv.use(**settings):
                assert_agrees(
                    getattr(PF, name), getattr(F, name), tensors, arguments, grad_output=torch.randn_like,
                    message=f"{name} sample {i} {arguments}", numeric_class=OTHERS[algorithm],
                )  # fmt: skip
    took = [call for call in calls if call.choice.kernel.full_algorithm == algorithm]
    if not took:
        pytest.skip("none of torch's samples has a filter of the size that it is for")
    assert {call.choice.problem.pass_ for call in took} >= {"forward", "grad_input"}


@pytest.mark.parametrize("name", [name for name in NAMES if OPS[name].error_inputs_func is not None])
def test_error_inputs(name):
    samples = list(OPS[name].error_inputs(DEVICE))
    assert len(samples) >= 10
    for sample in samples:
        arguments = (sample.sample_input.input, *sample.sample_input.args)
        expected = outcome(getattr(F, name), *arguments, **sample.sample_input.kwargs)
        raised = outcome(getattr(PF, name), *arguments, **sample.sample_input.kwargs)
        assert type(raised) is type(expected), f"{raised!r}, torch: {expected!r}"
        assert any(argument in str(raised) for argument in ARGUMENTS), raised


BAD = {
    "input rank": (dict(input=(3, 3)), r"input.*\[3, 3\]"),
    "weight rank": (dict(weight=(4, 3)), r"weight.*\[4, 3\]"),
    "input channels": (dict(input=(2, 5, 8, 8)), "5 channels"),
    "groups do not divide": (dict(groups=3), "groups=3"),
    "groups too many": (dict(groups=16), "groups=16"),
    "groups zero": (dict(groups=0), "groups.*0"),
    "groups negative": (dict(groups=-2), "groups.*-2"),
    "groups float": (dict(groups=1.0), "groups"),
    "stride zero": (dict(stride=0), "stride.*0"),
    "stride negative": (dict(stride=(1, -1)), "stride.*-1"),
    "stride float": (dict(stride=1.5), "stride.*1.5"),
    "stride None": (dict(stride=None), "stride.*None"),
    "stride of wrong length": (dict(stride=(1, 1, 1)), r"stride.*\[?\(?1, 1, 1"),
    "dilation zero": (dict(dilation=0), "dilation.*0"),
    "dilation string": (dict(dilation="2"), "dilation.*2"),
    "padding negative": (dict(padding=-1), "padding.*-1"),
    "padding of wrong length": (dict(padding=(1, 1, 1)), r"padding.*1, 1, 1"),
    "filter too large": (dict(weight=(4, 4, 9, 3)), r"Kernel size: \(9 x 3\)"),
    "bias length": (dict(bias=(5,)), r"bias.*\[5\]"),
    "bias rank": (dict(bias=(4, 1)), r"bias.*\[4, 1\]"),
    "empty image": (dict(input=(2, 4, 0, 8), padding=2), r"\[2, 4, 0, 8\]"),
}
BAD_FORWARD = {
    "padding string": (dict(padding="full"), "padding.*full"),
    "same with stride": (dict(padding="same", stride=2), "padding='same'"),
}
BAD_TRANSPOSE = {
    "output_padding too large": (dict(output_padding=1), "output.padding.*1"),
    "output_padding negative": (dict(output_padding=-1), "output_padding.*-1"),
    "padding swallows the output": (dict(padding=9), "padding"),
}


@pytest.mark.parametrize(
    "name, change, named",
    [
        pytest.param(name, *case, id=f"{name}: {what}")
        for name, extra in (("conv2d", BAD_FORWARD), ("conv_transpose2d", BAD_TRANSPOSE))
        for what, case in (BAD | extra).items()
        if not (name == "conv_transpose2d" and what in ("filter too large",))
    ],
)
def test_bad_arguments(name, change, named):
    """torch's class of error, a message with the argument and its value."""
    arguments = dict(input=(2, 4, 8, 8), weight=(4, 4, 3, 3)) | change
    for tensor in ("input", "weight", "bias"):
        if tensor in arguments:
            arguments[tensor] = torch.ones(arguments[tensor])
    expected = outcome(getattr(F, name), **arguments)
    assert expected is not None, "torch accepts this"
    with pytest.raises(type(expected), match=named) as raised:
        getattr(PF, name)(**arguments)
    assert type(raised.value) is type(expected)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, (2**63, 1), (1, 2**64)], ids=str)
@pytest.mark.parametrize(
    "name, argument",
    [
        *(("conv2d", argument) for argument in ("stride", "padding", "dilation", "groups")),
        *(("conv_transpose2d", argument) for argument in ("stride", "padding", "output_padding", "dilation", "groups")),
    ],
)
def test_integers_of_more_than_64_bits(name, argument, value):
    tensors = torch.ones(2, 4, 8, 8), torch.ones(4, 4, 3, 3)
    expected, raised = (outcome(getattr(f, name), *tensors, **{argument: value}) for f in (F, PF))
    assert type(raised) is type(expected)
    assert argument in str(raised) and (repr(value) in str(raised) or str(list(value)) in str(raised))


@pytest.mark.parametrize(
    "name, change",
    [
        ("conv2d", dict(padding=2**62 - 1)),
        ("conv2d", dict(padding=2**40)),
        ("conv_transpose2d", dict(stride=2**40)),
        ("conv_transpose2d", dict(stride=2**62)),
        ("conv_transpose2d", dict(dilation=2**62)),
    ],
)
def test_what_no_memory_holds_is_refused(name, change):
    tensors = torch.ones(2, 4, 8, 8), torch.ones(4, 4, 3, 3)
    with pytest.raises(RuntimeError, match="too large"):
        getattr(PF, name)(*tensors, **change)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.complex64], ids=str)
def test_mixed_dtypes(name, which, dtype):
    arguments = {"input": torch.ones(2, 4, 8, 8), "weight": torch.ones(4, 4, 3, 3), "bias": torch.ones(4)}
    arguments[which] = arguments[which].to(dtype)
    expected = outcome(getattr(F, name), **arguments) or RuntimeError()  # some devices' own leave the bias unchecked
    with pytest.raises(type(expected), match="type"):
        getattr(PF, name)(**arguments)


@pytest.mark.parametrize("value", [[[1.0]], None, 3], ids=str)
@pytest.mark.parametrize("which", ["input", "weight"])
def test_no_tensor(which, value):
    arguments = {"input": torch.ones(2, 4, 8, 8), "weight": torch.ones(4, 4, 3, 3)} | {which: value}
    assert type(outcome(F.conv2d, **arguments)) is TypeError
    with pytest.raises(TypeError, match=which):
        PF.conv2d(**arguments)


def test_a_lazily_negated_operand_is_not_taken_for_its_memory():
    """The imaginary part of a conjugate has the memory of the original; its strides may look dense."""
    weight = torch.randn(2, 1, 1, 1)
    for _ in range(2):  # the second call finds what the first one left behind
        plain = torch.randn(3, 1, 4, 2)[..., 0].unsqueeze(-1)
        negated = torch.randn(3, 1, 4, dtype=torch.complex64).conj().imag.unsqueeze(-1)
        assert negated.is_neg() and negated.stride() == plain.stride()
        for x in (plain, negated):
            torch.testing.assert_close(PF.conv2d(x, weight), F.conv2d(x, weight))
