"""Autocast and GradScaler reach the kernels of tensor cores, and a residual network trains in nhwc from end to end."""

import pytest
import torch
from torch import nn

import pycv
from pycv import models, registry
from pycv.models.resnet import Bottleneck, conv1x1
from pycv.problem import PASSES

from ..backend import DEVICE

TENSOR_CORES = ("wgmma", "mma_sync")


def parameters(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def two_blocks() -> nn.Module:
    """The second one strides."""
    shortcuts = [
        nn.Sequential(conv1x1(channels, 96, step), nn.BatchNorm2d(96)) for channels, step in ((40, 1), (96, 2))
    ]
    blocks = [Bottleneck(40, 24, 1, shortcuts[0]), Bottleneck(96, 24, 2, shortcuts[1])]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 8))


def train_a_step(model: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> list[registry.Call]:
    """In nhwc, on parameters in fp32; the calls of pycv's kernels."""
    pycv.patch(model.train().to(memory_format=torch.channels_last))
    x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16, init_scale=256)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pycv.use(backend="cuda"), registry.record() as calls:
        with torch.autocast(DEVICE, dtype):
            loss = nn.functional.cross_entropy(model(x), torch.arange(len(x), device=x.device))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss.isfinite() and scaler.get_scale() == (256 if dtype == torch.float16 else 1)  # no step was left out
    after = list(model.parameters())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in after)
    assert all((p != old).any() for p, old in zip(after, before, strict=True) if p.dim() == 4)
    return calls


def assert_on_tensor_cores_in_nhwc(calls: list[registry.Call], convolutions: int, dtype: str, thin: int = 0) -> None:
    """Every convolution of every pass, but for ``thin`` layers of a few channels."""
    convs = [call.choice for call in calls if call.choice.problem.op == "conv2d"]
    for pass_ in PASSES:
        of_pass = [choice for choice in convs if choice.problem.pass_ == pass_]
        assert len(of_pass) == convolutions - (thin if pass_ == "grad_input" else 0)  # the images want no gradient
        assert len([c for c in of_pass if c.kernel and c.kernel.algorithm in TENSOR_CORES]) == convolutions - thin
    for choice in convs:
        p = choice.problem
        assert p.dtype == dtype and p.input.name == p.output.name == "nhwc", p


def test_grad_scaler_with_float16():
    torch.manual_seed(0)
    x = torch.randn(2, 40, 6, 6).requires_grad_().to(DEVICE)
    assert_on_tensor_cores_in_nhwc(train_a_step(two_blocks().to(DEVICE), x, torch.float16), 8, "f16")


def test_a_step_of_autocast_is_that_of_torch():
    """The same change of the parameters, as closely as 8 bits let it be."""
    torch.manual_seed(0)
    x, model = torch.randn(2, 40, 6, 6).requires_grad_().to(DEVICE), two_blocks().to(DEVICE)
    full = two_blocks().to(DEVICE)
    full.load_state_dict(model.state_dict())
    start = parameters(model)
    assert_on_tensor_cores_in_nhwc(train_a_step(model, x, torch.bfloat16), 8, "bf16")
    nn.functional.cross_entropy(full(x), torch.arange(2, device=x.device)).backward()
    torch.optim.SGD(full.parameters(), lr=0.01).step()
    expected = parameters(full) - start
    assert (
        parameters(model) - start - expected
    ).norm() <= 0.25 * expected.norm()  # anything unlike it would be off by more than 1


@pytest.mark.full  # a minute
def test_resnet50_trains_in_bf16_without_a_change_of_layout():
    torch.manual_seed(0)
    calls = train_a_step(
        models.resnet50(num_classes=8).to(DEVICE), torch.randn(2, 3, 64, 64).to(DEVICE), torch.bfloat16
    )
    assert_on_tensor_cores_in_nhwc(calls, 53, "bf16", thin=1)
