"""Plans of batch_norm, local_response_norm and channel_sum."""

from __future__ import annotations

from math import prod
from typing import Any

from pycv.problem import ITEMSIZES, NormProblem

from .._plans import NormPlan
from . import batch_norm, channel_sum, local_response_norm, tiles
from .launch import Launch, bits, ceil_div, power_of_2, present, sum_dtype, sum_type
from .plans import strides_of

_CHANNEL_BLOCK = 128


class _Norm(NormPlan):
    launches: tuple[Launch, ...]

    def __init__(self, p: NormProblem) -> None:
        self._forward, self._training = p.pass_ == "forward", p.training
        self._dtype, self._sums, self._acc = p.dtype, sum_dtype(p.dtype), sum_type(p.dtype)
        self._positions, self._channels = prod(p.size), p.c
        self._per_channel = p.n * self._positions
        self._x = strides_of("x", p.input, p.c, p.size)
        self._y = strides_of("y", p.output, p.c, p.size)
        self._z = strides_of("z", p.residual or p.input, p.c, p.size)
        self._layout = p.input if p.pass_ == "forward" else p.output

    def _reduction(self) -> dict[str, Any]:
        """Blocks and parts of the sums per channel: a few programs for each multiprocessor."""
        block, height = tiles.block_of(self._channels, self._per_channel, 32 if self._x["x_c"] == 1 else 1)
        blocks = ceil_div(self._channels, block)
        parts = min(ceil_div(2 * tiles.PROCESSORS, max(1, blocks)), ceil_div(self._per_channel, 4 * height))
        count = max(1, ceil_div(self._per_channel, max(1, parts)))
        self._part_count, self._parts = count, ceil_div(self._per_channel, count)
        self._programs = blocks * self._parts
        return {
            "channels": self._channels, "positions": self._positions, "count": self._per_channel, "part_count": count,
            **self._x, "ACC": self._acc, "BC": block, "BE": height, "num_warps": 4,
        }  # fmt: skip

    def _by_channel(self, kernel: Any, pointers: dict[str, str], **arguments: Any) -> Launch:
        """A kernel that turns the sums of a channel into what the elements need."""
        block = power_of_2(self._channels, 16, _CHANNEL_BLOCK)
        return Launch(
            kernel, ceil_div(self._channels, block), pointers,
            channels=self._channels, count=self._per_channel, part_count=self._part_count, TRAINING=self._training,
            ACC=self._acc, BLOCK=block, num_warps=2, **arguments,
        )  # fmt: skip

    def _by_element(self, kernel: Any, pointers: dict[str, str], share: int = 1, **arguments: Any) -> Launch:
        """A kernel that takes the elements in the order of memory, 1 / ``share`` of a block at a time."""
        count = self._per_channel * self._channels
        block = power_of_2(count, 32, tiles.ELEMENTS // share)
        return Launch(
            kernel, ceil_div(count, block), pointers,
            count=count, channels=self._channels, positions=self._positions, **self._x, **self._y,
            ACC=self._acc, CHANNELS_LAST=self._layout.name == "nhwc", WIDE=count + block >= 2**31, BLOCK=block,
            num_warps=4, **arguments,
        )  # fmt: skip


class BatchNorm(_Norm):
    """The workspace holds the sums of each part, and behind them the parameters of the channels."""

    def __init__(self, p: NormProblem) -> None:
        super().__init__(p)
        reduction = self._reduction()
        itemsize = ITEMSIZES[self._sums]
        self._parameters = itemsize * 2 * self._parts * p.c
        self.workspace_bytes = self._parameters + itemsize * 4 * p.c
        tensors, sums = dict.fromkeys, self._sums
        if self._forward:
            first = Launch(batch_norm.moments, self._programs, {"x": p.dtype, "parts": sums}, **reduction)
            names = ("weight", "bias", "running_mean", "running_var")
            kept = tensors(("parts", "parameters", "mean", "invstd"), sums)
            scales = self._by_channel(
                batch_norm.scales, tensors(names, p.dtype) | kept, eps=bits(1e-5), momentum=bits(0.1)
            )
            last = self._by_element(
                batch_norm.normalise, tensors(("x", "y", "residual"), p.dtype) | {"parameters": sums},
                **self._z, RELU="relu" in p.epilogue,
            )  # fmt: skip
        else:
            center = sums if p.training else p.dtype  # whose dtype: the batch's mean or the running one
            first = Launch(
                batch_norm.products, self._programs,
                tensors(("x", "grad", "forward_output"), p.dtype) | {"center": center, "parts": sums},
                **reduction, **self._y,
            )  # fmt: skip
            names = ("weight", "running_var", "grad_weight", "grad_bias")
            kept = tensors(("parts", "parameters", "invstd"), sums)
            scales = self._by_channel(
                batch_norm.slopes, tensors(names, p.dtype) | {"center": center} | kept, eps=bits(1e-5)
            )
            tensor_names = ("x", "grad", "out", "forward_output", "grad_residual")
            last = self._by_element(
                batch_norm.gradients,
                tensors(tensor_names, p.dtype) | {"parameters": sums},
                **self._z,
                TRAINING=p.training,
            )
        self.launches = (first, scales, last)

    def run(
        self, input=0, grad_output=0, output=0, weight=0, bias=0, running_mean=0, running_var=0, mean=0, invstd=0,
        grad_weight=0, grad_bias=0, eps=0.0, momentum=0.0, alpha=0.0, beta=0.0, k=0.0, workspace=0, residual=0,
        forward_output=0, grad_residual=0,
    ) -> None:  # fmt: skip
        first, scales, last = self.launches
        scratch = {"parts": workspace, "parameters": workspace + self._parameters}
        if self._forward:
            if self._training:
                first(x=input, parts=workspace)
            scales(
                {"eps": bits(eps), "momentum": bits(momentum)}, **scratch, weight=weight, bias=bias,
                running_mean=running_mean, running_var=running_var, mean=mean, invstd=invstd,
            )  # fmt: skip
            last(x=input, y=output, residual=residual, parameters=scratch["parameters"])
            return
        center = mean if self._training else running_mean
        first(x=input, grad=grad_output, forward_output=forward_output, center=center, parts=workspace)
        scales(
            {"eps": bits(eps)}, **scratch, weight=weight, center=center, invstd=invstd, running_var=running_var,
            grad_weight=grad_weight, grad_bias=grad_bias,
        )  # fmt: skip
        if output or grad_residual:
            last(
                x=input, grad=grad_output, out=output, forward_output=forward_output, grad_residual=grad_residual,
                parameters=scratch["parameters"],
            )  # fmt: skip


class LocalResponseNorm(_Norm):
    def __init__(self, p: NormProblem) -> None:
        super().__init__(p)
        forward = (local_response_norm.forward, ("x", "y"))
        kernel, names = forward if self._forward else (local_response_norm.gradient, ("x", "grad", "out"))
        self.launches = (
            self._by_element(
                kernel, dict.fromkeys(names, p.dtype), 4, alpha=bits(1e-4), beta=bits(0.75), k=bits(1.0),
                BEFORE=p.window // 2, AFTER=(p.window - 1) // 2,
            ),
        )  # fmt: skip

    def run(self, input=0, grad_output=0, output=0, alpha=0.0, beta=0.0, k=0.0, workspace=0, **others: Any) -> None:
        numbers = {"alpha": bits(alpha), "beta": bits(beta), "k": bits(k)}
        tensors = {"x": input, "y": output} if self._forward else {"x": input, "grad": grad_output, "out": output}
        self.launches[0](numbers, **tensors)


class ChannelSum(_Norm):
    def __init__(self, p: NormProblem) -> None:
        super().__init__(p)
        reduction = self._reduction()
        self.workspace_bytes = ITEMSIZES[self._sums] * self._parts * p.c
        sums = Launch(channel_sum.sums, self._programs, {"x": p.dtype, "parts": self._sums}, **reduction)
        add = Launch(
            channel_sum.add, ceil_div(p.c, _CHANNEL_BLOCK), {"parts": self._sums, "out": p.dtype},
            channels=p.c, count=self._parts, ACC=self._acc, BLOCK=_CHANNEL_BLOCK,
        )  # fmt: skip
        self.launches = (sums, add)

    def run(self, input=0, output=0, workspace=0, **others: Any) -> None:
        self.launches[0](x=input, parts=workspace)
        self.launches[1](parts=present(workspace), out=output)


NORMS = {"batch_norm": BatchNorm, "local_response_norm": LocalResponseNorm, "channel_sum": ChannelSum}
