"""Problem sets: what is read from text is what is measured."""

import math

import pytest

from pycv import models, registry
from pycv.bench import layers, problems
from pycv.problem import ConvProblem, parse

from ..seed import sliced


@pytest.mark.parametrize("name", problems.set_names())
def test_every_shipped_set_reads_and_round_trips(name):
    cases = problems.load(name)
    assert cases and len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert parse(str(case.problem)) == case.problem
        assert registry.kernels(case.problem.op, case.problem.pass_)


def test_the_sets_say_what_their_networks_are():
    others = {
        "demo", "depthwise", "edge_cases", "gemm", "kernel_sizes", "large_kernels", "norms", "pools", "resnet_vgg",
        "roofline", "skinny", "squares",
    }  # fmt: skip
    assert set(problems.set_names()) == {*models.list_models(), *others}
    vgg = [c.problem for c in problems.load("vgg16") if isinstance(c.problem, ConvProblem)]
    assert len(vgg) == len(set(vgg)) == 9
    assert len(problems.load("resnet_vgg")) == 20
    assert len(problems.load("demo")) == 8
    convolutions = [c.problem for c in problems.load("resnet50") if isinstance(c.problem, ConvProblem)]
    assert len(convolutions) == len(set(convolutions)) == 23
    assert all(problems.description(name) for name in problems.set_names())


@pytest.mark.parametrize("name", sliced(models.list_models(), 3))
def test_the_set_of_a_network_is_what_the_model_gives(name):
    """`python -m pycv.bench.layers` makes it so."""
    assert (problems.SETS / f"{name}.txt").read_text() == layers.text(name)


def test_the_layers_of_a_network_add_up():
    found = layers.cases("lenet5", batch=2)
    assert [case.name for case in found if "relu" not in case.name] == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]
    macs = sum(count * c.problem.flops // 2 for c, count in found.items() if c.problem.op in ("conv2d", "gemm"))
    assert macs == 2 * 416_520
    twice = {str(case.problem): count for case, count in layers.cases("resnet18").items()}
    assert twice["conv2d.forward n1c64h56w56 k64r3s3 p1 f32 nchw cpu"] == 4
    assert twice["batch_norm.forward n1c64h56w56 f32 nchw cpu training"] == 4


def test_stale_sets_are_named_and_left_alone_by_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(layers, "SETS", tmp_path)
    assert layers.main(["lenet5", "--check"]) == 1 and capsys.readouterr().out == "not current: lenet5\n"
    assert not list(tmp_path.iterdir())
    assert layers.main(["lenet5"]) == 0 and layers.main(["lenet5", "--check"]) == 0


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
    with pytest.raises(ValueError, match="'nothere': neither one of alexnet, alexnet_original"):
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
    assert [case.name for case in made][::2] == ["a forward f32", "a grad_weight f32", "b forward f32"]
    assert problems.variants(cases) == cases
    with pytest.raises(ValueError, match="'backward'"):
        problems.variants(cases, ["backward"])
    assert math.prod(cases[0].problem.output_size) == 9
    batched = problems.variants([cases[0], problems.case("relu.forward e10")], batches=[2, 8], dtypes=["float64"])
    assert [case.name for case in batched] == ["a b2", "a b8", "relu.forward e10 f64 cpu"]
    (moved,) = problems.variants([problems.case("relu.forward e10")], device="cuda")
    assert moved.name == "relu.forward e10 f32 cuda" and moved.problem.device == "cuda"
    with pytest.raises(ValueError, match="'tpu': expected one of cpu, cuda"):
        problems.variants(cases, device="tpu")
    assert batched[1].problem.n == 8 and batched[1].problem.dtype == "f64"
