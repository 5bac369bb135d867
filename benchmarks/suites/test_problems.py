"""Every problem of a set under every contender, by pytest-benchmark.

    pytest benchmarks/suites --set resnet50 --contender pycv,torch:nhwc --benchmark-save NAME
    pytest benchmarks/suites --set resnet50 --benchmark-compare --benchmark-compare-fail median:5%

The problems, the data and the calls are those of `pycv bench run`, which interleaves its contenders; here each is timed
by itself. Every result is compared with float64 on other data than it was timed on.
"""

import pytest
import torch

from pycv.bench import Unavailable, check
from pycv.bench.data import random_data

TOLERANCE = {"f32": 1e-4, "f64": 1e-11}  # of the largest value: what is more is another result


@pytest.mark.benchmark(warmup=True, disable_gc=True)
def test_problem(benchmark, case, contender):
    with torch.no_grad():
        try:
            call = contender.prepare(case.problem, random_data(case.problem, seed=0))
        except Unavailable as reason:
            pytest.skip(str(reason))
        benchmark.group = case.name
        benchmark.extra_info.update(problem=str(case.problem), contender=contender.name)
        benchmark(call)
        fresh = random_data(case.problem, seed=1)
        error = check.error(contender.prepare(case.problem, fresh), check.reference(case.problem, fresh))
    benchmark.extra_info["error"] = error
    assert error < TOLERANCE.get(case.problem.dtype, 1e-2)
