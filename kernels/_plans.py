"""What the ops call of plans that are written in Python: by name, and by position where a call has to be quick."""

from __future__ import annotations

from collections.abc import Callable


class ConvPlan:
    """A plan of a convolution; it implements :meth:`launch`."""

    workspace_bytes = 0
    prepared_weight_bytes = 0

    def run(
        self, input: int, weight: int, output: int, bias: int = 0, residual: int = 0, workspace: int = 0,
        input_scale: int = 0, input_shift: int = 0, plain_weight: bool = False,
    ) -> None:  # fmt: skip
        self.launch(input, weight, output, bias, residual, workspace)

    def launch(self, input: int, weight: int, output: int, bias: int, residual: int, workspace: int) -> None:
        raise NotImplementedError


class NormPlan:
    """A plan of a normalisation or of channel_sum; it implements ``run``, which takes what it needs by name."""

    workspace_bytes = 0
    run: Callable[..., None]

    def launch(
        self, input, grad_output, output, weight, bias, running_mean, running_var, mean, invstd, grad_weight, grad_bias,
        workspace, residual, forward_output, grad_residual, eps, momentum,
    ) -> None:  # fmt: skip
        self.run(
            input=input, grad_output=grad_output, output=output, weight=weight, bias=bias, running_mean=running_mean,
            running_var=running_var, mean=mean, invstd=invstd, grad_weight=grad_weight, grad_bias=grad_bias,
            workspace=workspace, residual=residual, forward_output=forward_output, grad_residual=grad_residual, eps=eps,
            momentum=momentum,
        )  # fmt: skip
