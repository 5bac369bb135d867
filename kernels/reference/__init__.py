"""The definition of correct: every operation in NumPy float64, written to be read, not to be fast.

``run(problem, arrays, **scalars)`` computes the pass that the problem names. ``arrays`` holds float64 arrays in
(n, c, *spatial) order under the names that the plan's ``run`` gives its pointers (csrc/bindings); so does the result,
for the tensors that the pass writes. Layouts, dtype and device of the problem play no part.
"""

from __future__ import annotations

import numpy as np

from pycv.problem import ConvProblem, GemmProblem, NormProblem, PoolProblem, Problem

from . import conv, gemm, norm, pool, relu

Arrays = dict[str, np.ndarray]


def run(problem: Problem, arrays: Arrays, **scalars: float) -> Arrays:
    """The tensors that this pass writes.

    ====================  ==============================================  =====================================
    op                    reads                                           writes
    ====================  ==============================================  =====================================
    conv                  two of input, weight, output; bias, residual,   the third
                          input_scale, input_shift
    gemm                  a, b, bias, residual; alpha, beta               out
    pooling               forward: input; else output, indices            output, indices; else input
    batch_norm            input, weight, bias, running_mean,              output, mean, invstd, running_mean,
                          running_var, residual (grad_input:              running_var (grad_input: output,
                          grad_output, mean, invstd, forward_output);     grad_weight, grad_bias, grad_residual)
                          eps, momentum
    local_response_norm   input (grad_input: grad_output); alpha, beta,   output
                          k
    channel_sum           input                                           output
    relu                  input (grad_input: grad_output)                 output
    ====================  ==============================================  =====================================

    Scalars take the defaults of torch's functions where they are left out.
    """
    with np.errstate(all="ignore"):
        return _operation(problem)(problem, arrays, **scalars)


def _operation(problem: Problem):
    if isinstance(problem, ConvProblem):
        return conv.run
    if isinstance(problem, GemmProblem):
        return gemm.run
    if isinstance(problem, PoolProblem):
        return pool.run
    if isinstance(problem, NormProblem):
        return norm.run
    return relu.run
