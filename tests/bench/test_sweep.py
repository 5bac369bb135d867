"""Patterns of problems, parameters of kernels, and what is made of a sweep."""

import csv
import xml.etree.ElementTree as ElementTree

import pytest

from pycv import cli
from pycv.bench import plots, sweep


def texts(pattern):
    return [str(point.case.problem) for point in sweep.expand(pattern)]


def test_equal_braces_go_together():
    assert texts("n1c64h56w56 k64r{3..7:2}s{3..7:2} p{/2}") == [
        f"conv2d.forward n1c64h56w56 k64r{r}s{r} p{r // 2} f32 nchw cpu" for r in (3, 5, 7)
    ]
    assert sweep.expand("relu.forward e{5..6}")[1].values == {"5..6": "6"}


def test_different_braces_are_combined():
    assert texts("gemm.forward m{1,8}n4k{2..3} {f32,f64}") == [
        f"gemm.forward m{m}n4k{k} {dtype} cpu" for m in (1, 8) for k in (2, 3) for dtype in ("f32", "f64")
    ]
    assert texts("relu.forward e7") == ["relu.forward e7 f32 cpu"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("relu.forward e{3..1}", r"\{3..1\}: expected \{3..31\}"),
        ("relu.forward e{1..3:0}", "expected"),
        ("relu.forward e{}", "expected"),
        ("relu.forward e{1,}", "expected"),
        ("relu.forward e{1", "not closed"),
        ("relu.forward e{1,{2}}", "in another"),
        ("relu.forward e{/2}", "after a brace of numbers"),
        ("relu.forward e{3,4} {/0}", "after a brace of numbers"),
        ("gemm m{1..101}n{1..100}k1", "10100 problems; at most 10000"),
        ("n1c4h{1..99999999999999999}w4 k1r1s1", "99999999999999999 values; at most 10000"),
        ("n1c4h8w8 k4r{3..11:8}s3", "output size -2x6 must be 1 or more"),
    ],
)
def test_bad_patterns_are_named(pattern, message):
    with pytest.raises(ValueError, match=message):
        sweep.expand(pattern)


def test_parameters_make_contenders():
    made = sweep.contenders(["cpu:winograd", "torch:nchw"], {"variant": ["f2", "f4"], "workspace_limit": ["1MB"]})
    assert [one.name for one in made] == [
        "cpu:winograd/f2 workspace_limit=1MB", "cpu:winograd/f4 workspace_limit=1MB", "torch:nchw",
    ]  # fmt: skip
    assert [one.name for one in sweep.contenders(["cpu:winograd@nhwc"], {"tile": ["2", "4"]})] == [
        "cpu:winograd/f2@nhwc", "cpu:winograd/f4@nhwc",
    ]  # fmt: skip
    for parameters, message in (
        ({"block": ["3"]}, "'block': expected one of variant, tile, workspace_limit"),
        ({"tile": ["9"]}, "cpu:winograd/f9"),
        ({"tile": ["2"], "variant": ["f2"]}, "tile and variant: they name the same"),
        ({"variant": ["f9"]}, "cpu:winograd/f9"),
        ({"workspace_limit": ["lots"]}, "workspace_limit=lots"),
        ({"precision": ["high"]}, "precision=high: expected one of strict"),
        ({"deterministic": ["1"]}, "deterministic=1"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep.contenders(["cpu:winograd"], parameters)


def test_a_sweep_gives_rows_a_csv_and_a_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "bench",
        "sweep",
        "n1c4h12w12 k4r{3..5:2}s{3..5:2} {f32,f64}",
        "--contender",
        "cpu:winograd,torch:nchw",
    ]
    arguments += ["--kernel-param", "variant=f2", "--budget", "0.2", "--threads", "1"]
    assert cli.main([*arguments, "--csv", "a.csv", "--plot", "a.svg"]) == 0
    with open("a.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["3..5:2"], row["f32,f64"], row["contender"]) for row in rows] == [
        (r, dtype, name) for r in "35" for dtype in ("f32", "f64") for name in ("cpu:winograd/f2", "torch:nchw")
    ]
    assert all(row["kernel"] == row["contender"] and float(row["seconds"]) > 0 for row in rows)
    drawn = ElementTree.parse("a.svg").getroot()
    assert len(drawn.findall("{*}polyline")) == 4 and len(drawn.findall("{*}circle")) == 8 + 4
    capsys.readouterr()
    assert cli.main([*arguments, "--csv", "a.csv"]) == 2 and "a.csv exists" in capsys.readouterr().err
    assert cli.main(["bench", "sweep", "n1", "--kernel-param", "variant"]) == 2
    assert "--kernel-param variant: expected NAME=VALUE" in capsys.readouterr().err


def test_axes_have_round_ticks():
    assert plots.Axis(3, 31, 0, 100, False).ticks() == [5, 10, 15, 20, 25, 30]
    assert plots.Axis(0.5, 60, 0, 100).ticks() == [0.5, 1, 2, 5, 10, 20, 50]
    assert plots.Axis(1, 100, 0, 10).at(10) == 5
    with pytest.raises(ValueError, match="nothing to plot"):
        plots.lines({}, "x", "y", "nothing")
