"""Problem sets: what is read from text is what is measured."""

import math

import pytest

from pycv import registry
from pycv.bench import problems
from pycv.problem import ConvProblem, parse


@pytest.mark.parametrize("name", problems.set_names())
def test_every_shipped_set_reads_and_round_trips(name):
    cases = problems.load(name)
    assert cases and len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert parse(str(case.problem)) == case.problem
        assert registry.kernels(case.problem.op, case.problem.pass_)


def test_the_sets_say_what_their_networks_are():
    networks = {"alexnet", "lenet5", "mobilenet_v2", "resnet18", "resnet50", "vgg16"}
    assert set(problems.set_names()) == networks | {"demo", "gemm", "large_kernels", "norms", "pools", "resnet_vgg"}
    vgg = [c.problem for c in problems.load("vgg16") if isinstance(c.problem, ConvProblem)]
    assert len(vgg) == len(set(vgg)) == 9
    assert len(problems.load("resnet_vgg")) == 20
    assert len(problems.load("demo")) == 8
    convolutions = [c.problem for c in problems.load("resnet50") if isinstance(c.problem, ConvProblem)]
    assert len(convolutions) == len(set(convolutions)) == 23
    lenet = {case.name: case.problem for case in problems.load("lenet5")}
    macs = sum(p.flops // 2 for p in lenet.values() if p.op in ("conv2d", "gemm"))
    assert macs == 64 * 416_520


def test_a_set_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("# two\nfirst:  relu.forward e10\n\nconv2d.forward n1c2h5w5 k3r3s3 # no name\n")
    cases = problems.load(path)
    assert [case.name for case in cases] == ["first", "conv2d.forward n1c2h5w5 k3r3s3 f32 nchw cpu"]
    assert cases[1].problem.output_size == (3, 3)


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("relu.forward e10\nconv2d.forward n1c2h5w5 k3r9s3\n")
    with pytest.raises(ValueError, match=r"mine\.txt:2: .*output size -3x3 must be 1 or more"):
        problems.load(path)
    with pytest.raises(ValueError, match="'nothere': neither one of alexnet, demo"):
        problems.load("nothere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo.forward n1c1h1w1", "op 'foo' is not known"),
        ("relu.grad_weight e3", "relu has no pass grad_weight, only forward, grad_input"),
        ("conv2d.forward n1c3h8w8 k4r3s3 g2", "3 and 4 channels do not divide into 2 groups"),
        ("conv2d.forward n1c3h8w8 k4r3s3 g0", "3 and 4 channels do not divide into 0 groups"),
        ("conv2d.forward n1c3h8 k4r3", "needs 2 spatial sizes, not 1"),
        ("conv2d.forward n1c3h8w8 k4r3s3 u0", "stride 0 must be 1 or more"),
        ("conv2d.forward n1c3h8w8 k4r0s3", "filter 0x3 must be 1 or more"),
        ("gemm.forward f32", "'m' is missing"),
        ("conv2d.forward n1c3h8w8 banana", "'banana' is not understood"),
    ],
)
def test_text_that_no_kernel_could_run_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        problems.case(text)


def test_variants_multiply_passes_and_dtypes():
    cases = [problems.case("a: conv2d.forward n1c2h5w5 k3r3s3 bias+relu"), problems.case("b: relu.forward e10")]
    made = problems.variants(cases, ["forward", "grad_weight"], ["f32", "f64"])
    assert [str(case.problem) for case in made] == [
        "conv2d.forward n1c2h5w5 k3r3s3 f32 nchw cpu bias+relu",
        "conv2d.forward n1c2h5w5 k3r3s3 f64 nchw cpu bias+relu",
        "conv2d.grad_weight n1c2h5w5 k3r3s3 f32 nchw cpu",
        "conv2d.grad_weight n1c2h5w5 k3r3s3 f64 nchw cpu",
        "relu.forward e10 f32 cpu",
        "relu.forward e10 f64 cpu",
    ]
    assert problems.variants(cases) == cases
    with pytest.raises(ValueError, match="'backward'"):
        problems.variants(cases, ["backward"])
    assert math.prod(cases[0].problem.output_size) == 9
