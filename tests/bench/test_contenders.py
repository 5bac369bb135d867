"""Contenders compute what the problem says, on the kernel that their name says."""

import sys
from dataclasses import replace

import pytest
import torch

from pycv import registry, settings
from pycv.bench import check, contenders, data
from pycv.bench.problems import case
from tests.bench.compiler import Compiler

PROBLEMS = [
    "conv2d.forward n2c6h9w8 k8r3s3 p1",
    "conv2d.forward n2c6h9w8 k8r3s3 u2 d2 p2 g2 nhwc w=nhwc bias",
    "conv2d.forward n2c6h9w8 k8r3s3 p1 bias+residual+relu",
    "conv1d.forward n2c3w9 k4s3 bias+relu",
    "conv3d.forward n1c2d4h5w6 k3t2r3s3 f64",
    "conv2d.grad_input n2c6h9w8 k8r3s3 u2 p1x0",
    "conv2d.grad_input n2c6h9w8 k8r3s3 u2 bias",
    "conv2d.grad_weight n2c6h9w8 k8r3s3 nhwc w=nhwc",
    "gemm.forward m5n7k11 b=col bias",
    "gemm.forward m5n7k11 b=col bias+residual+relu",
    "gemm.forward b3m5n7k11 f64",
    "gemm.forward m5n7k11",
    "max_pool2d.forward n2c3h9w9 r3s3 u2 p1",
    "max_pool2d.forward n2c3h9w9 r2s2 u2 o5 indices",
    "max_pool2d.grad_input n2c3h9w9 r3s3 u2 p1 indices",
    "max_pool2d.forward n2c3h9w9 r3s3 u2 p1 offsets",
    "max_pool2d.grad_input n2c3h9w9 r3s3 u2 p1 offsets",
    "avg_pool2d.forward n2c3h9w9 r3s3 u2 p1 exclude_pad",
    "avg_pool3d.grad_input n2c3d4h5w5 t2r2s2 u2 divisor3",
    "avg_pool1d.forward n2c3w9 s3",
    "adaptive_avg_pool2d.forward n2c3h9w8 o4x3 nhwc",
    "adaptive_max_pool2d.forward n2c3h9w8 o4x3 indices",
    "batch_norm.forward n3c4h5w6 training",
    "batch_norm.forward n3c4h5w6 nhwc",
    "batch_norm.grad_input n3c4h5w6 training",
    "local_response_norm.forward n2c7h3w4 l5",
    "relu.forward e1000",
    "relu.grad_input e1000 f64",
]


@pytest.fixture(autouse=True)
def without_grad():
    with torch.no_grad():
        yield


def names_for(problem):
    kernels = registry.kernels(problem.op, problem.pass_)
    own = [
        kernel.name
        for kernel in kernels
        if kernel.backend != "torch"
        and kernel.numeric_class != "fast"
        and _runs(kernel, problem)
        and (kernel.backend != "numba" or problem.op == "relu")  # seconds to compile, and contenders like the others
    ]
    image = hasattr(problem, "input")
    return ["pycv", *own, "torch:nchw", *(["torch:nhwc"] if image else [])]


def _runs(kernel, problem):
    """Through a function: a gradient's forward pass is under the same setting, and has to be supported too."""
    forward = replace(problem, pass_="forward") if problem.pass_ != "forward" and "conv" in problem.op else problem
    there = [k for k in registry.kernels(forward.op, forward.pass_) if k.name == kernel.name] or [kernel]
    return kernel.supports(problem) is None and there[0].supports(forward) is None


@pytest.mark.parametrize("text", PROBLEMS)
def test_every_contender_solves_the_problem(text):
    problem = case(text).problem
    values = data.random_data(problem, seed=3)
    expected = check.reference(problem, values)
    for name in names_for(problem):
        made = contenders.contender(name).prepare(problem, values)
        with registry.record() as log:
            error = check.error(made, expected)
        assert error < (1e-13 if problem.dtype == "f64" else 2e-5), name
        if not name.startswith("torch"):
            ran = [call.choice for call in log if call.choice.problem == problem]
            assert ran, f"{name} ran {[str(call.choice.problem) for call in log]}"
            kernel = ran[0].kernel
            assert name in ("pycv", kernel.name, f"{kernel.backend}:{kernel.algorithm}")


def test_the_same_seed_gives_the_same_values():
    problem = case(PROBLEMS[0]).problem
    one, same, other = (data.random_data(problem, seed)["input"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_tensors_lie_as_the_problem_says():
    problem = case("conv2d.forward n2c6h9w8 k8r3s3 nhwc/720/10>nchw w=nhwc").problem
    tensors = data.arranged(problem, data.random_data(problem, 0))
    assert tensors["input"].stride() == (720, 1, 80, 10)
    assert tensors["weight"].is_contiguous(memory_format=torch.channels_last)
    assert tensors["grad_output"].is_contiguous()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpu:winograd/f6", "conv2d.forward n1c8h13w13 k8r3s3 p1"),
        ("cpu:winograd/f4", "conv2d.grad_input n1c8h13w13 k8r5s5 p2"),
    ],
)
def test_a_kernel_of_class_fast_runs_where_it_is_named(name, text):
    problem = case(text).problem
    values = data.random_data(problem, 0)
    with registry.record() as log:
        contenders.contender(name).prepare(problem, values)()
    assert {call.choice.kernel.name for call in log} == {name}
    with settings.use(precision="default"), pytest.raises(contenders.Unavailable, match="looser than precision"):
        contenders.contender(name).prepare(problem, values)


def test_numpy_is_given_as_many_threads_as_the_others(monkeypatch):
    from threadpoolctl import threadpool_info

    problem = case("gemm.forward m8n8k8").problem
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            contenders.contender("numpy:matmul").prepare(problem, data.random_data(problem, 0))()
        finally:
            torch.set_num_threads(before)
        assert {pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]} == {count}
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(contenders.Unavailable, match="pip install threadpoolctl"):
        contenders.contender("numpy:matmul").prepare(problem, data.random_data(problem, 0))


def test_preparing_leaves_the_shared_data_alone():
    problem = case("relu.grad_input e10").problem
    values = data.random_data(problem, 0)
    before = {name: value.clone() for name, value in values.items()}
    for name in ("pycv", "torch:nchw"):
        contenders.contender(name).prepare(problem, values)()
    assert all(torch.equal(values[name], before[name]) and not values[name].requires_grad for name in values)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("torch:nhwc", "relu.forward e10", "no image layout"),
        ("cpu:im2col", "relu.forward e10", "relu.forward has no algorithm im2col"),
        ("cpu:im2col", "conv2d.forward n1c1h3w3 k1r1s1 f16", "f16"),
        ("pycv", "conv2d.forward n1c1h3w3 k1r1s1 nchw>nchw/100", "cannot write into a slice"),
        ("pycv", "channel_sum.forward n1c1h3w3", "a part of other functions"),
        ("torch:nchw", "gemm.forward m2n2k2 bias", "only linear"),
    ],
)
def test_what_cannot_run_says_why(name, text, reason):
    problem = case(text).problem
    with pytest.raises(contenders.Unavailable, match=reason):
        contenders.contender(name).prepare(problem, data.random_data(problem, 0))


def test_the_reason_is_that_of_the_kernels_that_were_asked_for():
    problem = case("conv2d.forward n1c8h8w8 k8r1s1").problem
    with pytest.raises(contenders.Unavailable) as found:
        contenders.contender("cpu:winograd").prepare(problem, data.random_data(problem, 0))
    reason = str(found.value)
    assert "filter 1x1: this tile is for 3x3" in reason and "was asked for" not in reason
    assert reason.count("looser than precision") == 1 and len(reason) < 700


@pytest.mark.parametrize("text", ["relu.forward e{}", "conv2d.forward n1c2h{}w8 k2r1s1 bias+relu"])
def test_every_problem_is_compiled_once_and_runs_compiled_however_many_came_before(text):
    for size in range(3, 12):  # torch gives up on the ninth of a function
        problem, compiler = case(text.format(size)).problem, Compiler()
        made = [
            contenders._compiled({"backend": compiler}, problem, data.random_data(problem, seed)) for seed in (0, 1)
        ]
        made[0]()
        assert compiler.runs == [3], size


def test_what_torch_would_not_compile_is_unavailable():
    problem = case("relu.forward e3").problem
    with (
        torch._dynamo.config.patch(recompile_limit=0),
        pytest.raises(contenders.Unavailable, match=r"torch\.compile: FailOnRecompileLimitHit"),
    ):
        contenders._compiled({"backend": "eager"}, problem, data.random_data(problem, 0))


def test_inductors_triton_templates_compete_alone(monkeypatch):
    """Its options are those of this torch, none of the vendor's libraries is among them, and it searches."""
    asked = {}

    def compile(model, dynamic, options):
        asked.update(options)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    made = contenders.contender("torch:triton-templates")
    for text in ("gemm.forward m5n7k11 b=col bias", "conv2d.forward n1c2h5w5 k2r3s3 bias+relu"):
        problem = case(text).problem
        values = data.random_data(problem, 0)
        assert check.error(made.prepare(problem, values), check.reference(problem, values)) < 1e-5
    assert asked["max_autotune"] and set(asked) <= set(torch._inductor.list_options())
    assert {asked["max_autotune_gemm_backends"], asked["max_autotune_conv_backends"]} == {"TRITON"}
    for text, reason in (("relu.forward e9", "convolutions and matrix"), ("conv2d.grad_input n1c1h3w3 k1r1s1", "forw")):
        problem = case(text).problem
        with pytest.raises(contenders.Unavailable, match=reason):
            made.prepare(problem, data.random_data(problem, 0))


def test_unknown_contenders_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'cpu:magic': expected one of pycv, cpu, .*cpu:im2col, .*torch:nchw"):
        contenders.contender("cpu:magic")


def test_a_wrong_result_is_seen():
    expected = torch.tensor([1.0, -4.0, 2.0], dtype=torch.float64)
    assert check.error(lambda: expected.float(), expected) == 0
    assert check.error(lambda: torch.tensor([1.0, -4.0, 2.4]), expected) == pytest.approx(0.1)
    assert check.error(lambda: torch.tensor([1.0, -4.0, float("nan")]), expected) == float("inf")
    assert check.error(lambda: torch.zeros(4), expected) == float("inf")
    assert check.error(lambda: torch.tensor([0.0, 0.5]), torch.zeros(2, dtype=torch.float64)) == 0.5
