"""batch_norm, local_response_norm and channel_sum.

batch_norm, per channel: y = (x - mean) * invstd * weight + bias, invstd = 1 / sqrt(var + eps); mean and var are those
of the batch in training (biased; the running variance takes the unbiased one), the running ones in evaluation. Its
epilogue adds a residual and cuts off below 0; the gradient of that cut is where the forward's output is not <= 0.
local_response_norm: y = x * d ** -beta, d = k + alpha / window * sum of x ** 2 over the window of neighbouring channels
from c - window // 2 to c + (window - 1) // 2.
channel_sum: the sum over batch and positions, one value per channel (the gradient of a bias).
"""

from __future__ import annotations

import numpy as np

from pycv.problem import NormProblem


def run(problem: NormProblem, arrays: dict[str, np.ndarray], **scalars: float) -> dict[str, np.ndarray]:
    """See :func:`pycv.kernels.reference.run`."""
    if problem.op == "channel_sum":
        return {"output": arrays["input"].sum(_reduced(arrays["input"]))}
    table = {
        ("batch_norm", "forward"): _batch_norm_forward,
        ("batch_norm", "grad_input"): _batch_norm_grad_input,
        ("local_response_norm", "forward"): _lrn_forward,
        ("local_response_norm", "grad_input"): _lrn_grad_input,
    }
    return table[problem.op, problem.pass_](problem, arrays, **scalars)


def _reduced(x: np.ndarray) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _per_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _batch_norm_forward(
    problem: NormProblem, arrays: dict[str, np.ndarray], eps: float = 1e-5, momentum: float = 0.1
) -> dict[str, np.ndarray]:
    x, result = arrays["input"], {}
    if problem.training:
        mean, var = x.mean(_reduced(x)), x.var(_reduced(x))
        result = {"mean": mean, "invstd": 1 / np.sqrt(var + eps)}
        count = x.size // problem.c if problem.c else 0
        unbiased = var * count / (count - 1)
        for name, value in (("running_mean", mean), ("running_var", unbiased)):
            if name in arrays:
                result[name] = (1 - momentum) * arrays[name] + momentum * value
    else:
        mean, var = arrays["running_mean"], arrays["running_var"]
    result["output"] = (x - _per_channel(mean, x)) * _per_channel(1 / np.sqrt(var + eps), x)
    if "weight" in arrays:
        result["output"] = result["output"] * _per_channel(arrays["weight"], x)
    if "bias" in arrays:
        result["output"] = result["output"] + _per_channel(arrays["bias"], x)
    if "residual" in problem.epilogue:
        result["output"] = result["output"] + arrays["residual"]
    if "relu" in problem.epilogue:
        result["output"] = np.where(result["output"] < 0, 0, result["output"])
    return result


def _batch_norm_grad_input(
    problem: NormProblem, arrays: dict[str, np.ndarray], eps: float = 1e-5, momentum: float = 0.1
) -> dict[str, np.ndarray]:
    """``mean`` and ``invstd`` of the forward in training (functions of x, which the gradient goes through too)."""
    x, grad = arrays["input"], arrays["grad_output"]
    if "relu" in problem.epilogue:
        grad = np.where(arrays["forward_output"] <= 0, 0, grad)
    grad_residual = {"grad_residual": grad} if "residual" in problem.epilogue else {}
    if problem.training:
        mean, invstd = arrays["mean"], arrays["invstd"]
    else:
        mean, invstd = arrays["running_mean"], 1 / np.sqrt(arrays["running_var"] + eps)
    normalized = (x - _per_channel(mean, x)) * _per_channel(invstd, x)
    grad_weight, grad_bias = (grad * normalized).sum(_reduced(x)), grad.sum(_reduced(x))
    scale = invstd * arrays["weight"] if "weight" in arrays else invstd
    if problem.training:
        count = x.size // problem.c if problem.c else 1
        grad = grad - _per_channel(grad_bias / count, x) - normalized * _per_channel(grad_weight / count, x)
    gradients = {"output": grad * _per_channel(scale, x), "grad_weight": grad_weight, "grad_bias": grad_bias}
    return gradients | grad_residual


def window_sum(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """For every channel c, the sum of the channels from c - before to c + after."""
    c = x.shape[1]
    return np.stack([x[:, max(0, i - before) : i + after + 1].sum(1) for i in range(c)], 1) if c else x


def lrn_denominator(problem: NormProblem, x: np.ndarray, alpha: float, k: float) -> np.ndarray:
    before, after = problem.window // 2, (problem.window - 1) // 2
    return k + alpha / problem.window * window_sum(x * x, before, after)


def _lrn_forward(
    problem: NormProblem, arrays: dict[str, np.ndarray], alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> dict[str, np.ndarray]:
    x = arrays["input"]
    with np.errstate(all="ignore"):  # of 0, and of what a negative alpha makes negative: infinities and NaN
        return {"output": x * lrn_denominator(problem, x, alpha, k) ** -beta}


def _lrn_grad_input(
    problem: NormProblem, arrays: dict[str, np.ndarray], alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> dict[str, np.ndarray]:
    x, grad = arrays["input"], arrays["grad_output"]
    d = lrn_denominator(problem, x, alpha, k)
    if beta == 0:
        return {"output": grad.copy()}
    with np.errstate(all="ignore"):
        # Channel i is in the window of the channels from i - after to i + before.
        through = window_sum(grad * x * (d**-beta / d), (problem.window - 1) // 2, problem.window // 2)
        return {"output": grad * d**-beta - 2 * alpha * beta / problem.window * x * through}
