"""The command line: what it prints, where it records, and how it ends."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys

import pytest

import pycv
import pycv.demo
from pycv import bench, cli
from pycv.bench import machine, readme, report, runner


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write below the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_and_version(capsys):
    for arguments in ([], ["--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0 and all(
            command in out
            for command in ("demo", "info", "kernels", "models", "summary", "train", "eval", "predict", "tune", "bench")
        )
    assert run(capsys, "--version")[1].strip() == pycv.__version__


def test_info_is_printed(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0 and out.startswith("pycv ") and "instruction" not in out and "OpenMP" in out


def test_kernels_as_table_and_json(capsys):
    code, out, _ = run(capsys, "kernels", "--op", "relu")
    assert code == 0
    assert out.splitlines()[2].split() == [
        *("relu", "forward", "cpu", "direct", "strict", "yes", "f32", "f64", "-", "cpu", "-")
    ]
    _, out, _ = run(capsys, "kernels", "--json")
    rows = json.loads(out)
    assert len(rows) == len(pycv.kernels())
    direct = next(r for r in rows if (r["op"], r["pass"], r["algorithm"]) == ("conv3d", "grad_weight", "direct"))
    assert direct["dtypes"] == ["f32", "f64"] and direct["layouts"] == ["nchw", "nhwc"] and direct["devices"] == ["cpu"]
    assert all(row["devices"] == ["cpu", "cuda"] for row in rows if row["backend"] == "torch")


def test_kernels_for_a_problem(capsys):
    code, out, _ = run(capsys, "kernels", "conv2d.forward", "n1c4h8w8", "k8r3s3", "f16")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "conv2d.forward n1c4h8w8 k8r3s3 f16 nchw cpu"
    assert lines[3].startswith("torch:torch") and "runs it" in lines[3]
    assert any(line.startswith("cpu:direct") and "no: dtype f16" in line for line in lines)


def test_models_as_table_and_json(capsys):
    code, out, _ = run(capsys, "models", "lenet*")
    assert code == 0
    assert [line.split() for line in out.splitlines()[::2]] == [
        ["model", "image", "parameters", "MACs"],
        ["lenet5", "1×32×32", "61,706", "416,520"],
    ]
    _, out, _ = run(capsys, "models", "lenet5", "--json")
    assert json.loads(out) == [{"name": "lenet5", "image": [1, 32, 32], "parameters": 61_706, "macs": 416_520}]
    code, _, err = run(capsys, "models", "no such*")
    assert code == 2 and "no model matches 'no such*'" in err


def test_summary_as_table_and_json(capsys):
    code, out, _ = run(capsys, "summary", "lenet5", "--size", "36", "--batch", "2", "--classes", "3")
    assert code == 2 and not out  # 36 pixels do not fit the linear layer
    code, out, _ = run(capsys, "summary", "resnet18", "--size", "64", "--batch", "2", "--classes", "3")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and lines[0] == ["resnet18"] and lines[3] == ["input", "3×64×64", "24,576", "0.10", "1"]
    assert lines[-3] == ["fc", "Linear", "3", "6", "0.00", "1,539", "3,072", "whole"]
    _, out, _ = run(capsys, "summary", "lenet5", "--json")
    found = json.loads(out)
    assert found["totals"]["parameters"] == 61_706 and found["layers"][1]["name"] == "c1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet",), "did you mean lenet5"),
        (("lenet5", "--size", "20"), "lenet5 of images 1×20×20: "),
        (("vgg16", "--size", "0"), "expected positive sizes"),
        (("vgg16", "--batch", "0"), "expected positive sizes"),
        (("vgg16", "--classes", "0"), "--classes 0"),
        (("lenet5_original", "--classes", "3"), "num_classes=3: lenet5_original holds the pictures of ten digits"),
    ],
)
def test_summary_of_what_cannot_be(capsys, arguments, message):
    code, out, err = run(capsys, "summary", *arguments)
    assert code == 2 and message in err and not out


def test_bench_runs_prints_and_records(capsys, elsewhere):
    arguments = ("bench", "run", "a: relu.forward e100", "--contender", "cpu:direct,torch:nchw", "--budget", "0.2")
    code, out, _ = run(capsys, *arguments, "--pass", "forward,grad_input", "--dtype", "f64", "--threads", "1")
    assert code == 0
    (path,) = (elsewhere / "runs" / "bench").glob("*.json")
    assert f"Recorded in {path.relative_to(elsewhere)}" in out
    rows = bench.read(path)["rows"]
    assert [(row["problem"], row["contender"]) for row in rows] == [
        (f"relu.{pass_} e100 f64 cpu", name)
        for pass_ in ("forward", "grad_input")
        for name in ("cpu:direct", "torch:nchw")
    ]
    code, again, _ = run(capsys, "bench", "report", str(path))
    assert code == 0 and again.strip() in out


def test_bench_never_overwrites(capsys, elsewhere):
    (elsewhere / "out.json").write_text("precious")
    code, _, err = run(capsys, "bench", "run", "relu.forward e10", "--json", "out.json")
    assert code == 2 and "never overwritten" in err
    assert (elsewhere / "out.json").read_text() == "precious"


def test_bench_without_options_is_what_make_bench_runs(capsys, monkeypatch):
    seen = {}

    def fake(cases, contenders, **options):
        seen.update(options, cases=cases, contenders=[contender.name for contender in contenders])
        return []

    monkeypatch.setattr(bench, "run", fake)
    assert run(capsys, "bench")[0] == 0
    assert len(seen["cases"]) == 20 and seen["budget"] == 90
    assert seen["contenders"] == ["pycv", "torch:nchw", "torch:nhwc"]


def test_progress_is_plain_lines_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    code, _, err = run(capsys, "bench", "run", "a: relu.forward e10", "b: relu.forward e11", "--budget", "0.1")
    assert code == 0
    assert err.splitlines() == ["[0/2] this machine's peaks", "[0/2] a", "[1/2] b", "[2/2] done"]


def test_demo_gets_its_own_options(capsys, monkeypatch):
    monkeypatch.setattr(pycv.demo, "main", lambda arguments: print(arguments))
    assert run(capsys, "demo", "--anything", "1")[:2] == (0, "['--anything', '1']\n")


def test_an_interrupt_is_no_traceback(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run", interrupted)
    code, _, err = run(capsys, "bench", "run", "relu.forward e10")
    assert code == 130 and err.endswith("pycv: interrupted\n")


@pytest.fixture
def outputs(monkeypatch):
    """Standard outputs that do not take everything: an encoding of few characters, a full disk, a pipe's closed end."""
    reader, writer = os.pipe()
    os.close(reader)
    made = {"full": os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), "closed": os.fdopen(writer, "w", 1)}
    made["ascii"] = io.TextIOWrapper(io.BytesIO(), "ascii")
    yield lambda which: monkeypatch.setattr(sys, "stdout", made[which]) or made[which]
    for each in made.values():
        each.close()


@pytest.mark.parametrize(("output", "code"), [("ascii", 0), ("closed", 0), ("full", 1)])
@pytest.mark.parametrize("command", [("run", "relu.forward e10"), ("sweep", "relu.forward e{10,11}")])
def test_results_are_recorded_before_they_are_printed(command, output, code, outputs, capsys, elsewhere):
    stream = outputs(output)
    file = "--csv" if command[0] == "sweep" else "--json"
    arguments = ("bench", *command, file, "x", "--contender", "torch:nchw", "--budget", "0.05")
    assert cli.main(arguments) == code
    assert (elsewhere / "x").stat().st_size > 100
    if output == "ascii":
        stream.seek(0)
        assert "?%" in stream.read()


def test_a_full_standard_output_is_one_line(outputs, capsys):
    outputs("full")
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err == "pycv: error: no space left on device\n"


@pytest.mark.parametrize(
    ("command", "number"), [("run", signal.SIGINT), ("sweep", signal.SIGINT), ("run", signal.SIGTERM)]
)
def test_a_signal_keeps_what_was_measured(command, number, capsys, elsewhere, monkeypatch):
    measured, measure = [], runner._measure_case

    def one_only(*arguments):
        if measured:
            if number == signal.SIGTERM:
                signal.raise_signal(number)
            raise KeyboardInterrupt  # as SIGINT does, unless whoever started the tests ignores it
        measured.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(runner, "_measure_case", one_only)
    files = ("--csv", "x") if command == "sweep" else ("--json", "x")
    problems = ["relu.forward e{10,11}"] if command == "sweep" else ["relu.forward e10", "relu.forward e11"]
    arguments = ["bench", command, *problems, *files, "--contender", "torch:nchw", "--budget", "0.1"]
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit, match="143"):
            cli.main(arguments)
        code, (out, err) = 130, capsys.readouterr()
    else:
        code, out, err = run(capsys, *arguments)
    assert code == 130 and not out and "Recorded in x what was measured until then" in err
    assert "relu.forward e10 f32 cpu" in (text := (elsewhere / "x").read_text()) and "e11" not in text


def test_what_no_disk_takes_is_printed(capsys, elsewhere, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(report, "create", full)
    monkeypatch.setattr(cli, "_drop_output", lambda: None)
    code, out, err = run(capsys, "bench", "run", "relu.forward e10", "--contender", "torch:nchw", "--budget", "0.1")
    assert code == 1 and err.endswith("pycv: error: no space left on device\n") and "torch:nchw" in out


def test_bench_lists_what_there_is(capsys):
    code, out, _ = run(capsys, "bench", "list")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["resnet_vgg", "20"] in [line[:2] for line in lines]
    assert ["conv2d.forward", "cpu"] in [line[:2] for line in lines]
    _, out, _ = run(capsys, "bench", "list", "contenders", "--json")
    (found,) = json.loads(out).values()
    assert {"pycv", "cpu", "cpu:winograd", "cpu:winograd/f4", "torch:nhwc", "mkl:matmul"} <= {
        r["contender"] for r in found
    }
    assert all(row["what"] for row in found)


def test_bench_compares_and_fails_on_a_regression(capsys, elsewhere):
    assert run(capsys, "bench", "run", "relu.forward e100", "--budget", "0.1", "--json", "a.json")[0] == 0
    code, out, _ = run(capsys, "bench", "compare", "a.json", "a.json", "--fail-over", "5%")
    assert code == 0 and "no difference" in out
    measured = json.loads((elsewhere / "a.json").read_text())
    for name, seconds in (("a.json", 1e-6), ("b.json", 2e-6)):  # a busy machine's own intervals may be as wide as that
        for row in measured["rows"]:
            row.update(dict.fromkeys(("seconds", "q25", "q75"), seconds), gflops=1.0)  # a refused row has none of them
            row.update(low=0.99 * seconds, high=1.01 * seconds)
        (elsewhere / name).write_text(json.dumps(measured))
    code, out, _ = run(capsys, "bench", "compare", "a.json", "b.json", "--fail-over", "5%")
    assert code == 1 and "regression" in out and "+100.0 %" in out
    code, out, _ = run(capsys, "bench", "compare", "a.json", "b.json", "--fail-over", "150")
    assert code == 0 and "slower" in out
    code, _, err = run(capsys, "bench", "compare", "a.json", "b.json", "--fail-over", "few")
    assert code == 2 and "--fail-over few: expected a percentage" in err


def test_bench_reports_as_one_page(capsys, elsewhere):
    assert run(capsys, "bench", "run", "relu.forward e100", "--budget", "0.1", "--json", "a.json")[0] == 0
    code, out, _ = run(capsys, "bench", "report", "a.json", "--output", "out/report.html", "--title", "mine")
    assert code == 0 and out == "Written to out/report.html\n"
    assert "relu.forward e100 f32 cpu" in (elsewhere / "out/report.html").read_text()
    assert [path.name for path in (elsewhere / "out").iterdir()] == ["report.html"]


def test_bench_roofline_shows_peaks_and_places_kernels(capsys, elsewhere, monkeypatch):
    monkeypatch.setattr(machine, "peaks_of", lambda isa, threads: None)
    code, out, _ = run(capsys, "bench", "roofline", "r: relu.forward e1000", "--budget", "0.1", "--json", "a.json")
    assert code == 0 and "L1" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("r ")] == [["r", "cpu:direct"]]
    (row,) = bench.read("a.json")["rows"]
    assert row["bound"] == "L1" and 0 < row["roofline"] < 1


def test_bench_records_csv_and_markdown(capsys, elsewhere):
    files = ("--json", "a.json", "--csv", "a.csv", "--markdown", "a.md")
    arguments = ("bench", "run", "a: relu.forward e100", "--budget", "0.1", "--dtype", "float64", "--contender", "pycv")
    assert run(capsys, *arguments, *files)[0] == 0
    rows = bench.read("a.json")["rows"]
    with (elsewhere / "a.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["seconds"]) for row in read] == [row["seconds"] for row in rows]
    assert list(read[0]) == list(rows[0]) and read[0]["problem"] == "relu.forward e100 f64 cpu"
    assert (elsewhere / "a.md").read_text().startswith("| layer | pycv ms |")
    code, _, err = run(capsys, *arguments, "--json", "b.json", "--csv", "a.csv")
    assert code == 2 and "a.csv exists" in err and not (elsewhere / "b.json").exists()


def test_the_readme_is_rewritten(capsys, elsewhere):
    (elsewhere / "README.md").write_text(f"{readme.BEGIN}{readme.END}")
    code, _, _ = run(
        capsys, "bench", "run", "relu.forward e10", "--budget", "0.1", "--json", str(elsewhere / readme.RECORDING)
    )
    assert code == 0
    code, out, _ = run(capsys, "bench", "report", "--readme")
    assert code == 0 and readme.RECORDING.name in out
    assert "| layer | pycv ms |" in (elsewhere / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bork"], "there is no command 'bork': expected one of demo, info, kernels, models, summary, train,"),
        (["kernels", "conv2d.forward", "banana"], "'banana' is not understood"),
        (["kernels", "--op", "conv9d"], "op='conv9d': expected one of"),
        (["bench", "bork"], "expected one of list, run"),
        (["bench", "list", "bork"], "'bork': expected one of ops, kernels, sets, contenders"),
        (["bench", "run", "relu.forward e1", "--batch", "0"], "--batch 0: expected a whole number"),
        (["bench", "run", "relu.forward e1", "--precision", "0"], "--precision 0.0: expected more than 0"),
        (["bench", "run"], "nothing to measure"),
        (["bench", "run", "conv2d.forward n1c1h2w2 k1r3s3"], "output size 0x0 must be 1 or more"),
        (["bench", "run", "--set", "nothere"], "problem set 'nothere'"),
        (["bench", "run", "relu.forward e1", "--contender", "cpu:magic"], "contender 'cpu:magic'"),
        (["bench", "run", "relu.forward e1", "--pass", "backward"], "'backward': expected one of forward"),
        (["bench", "run", "relu.forward e1", "--threads", "0"], "--threads 0"),
        (["bench", "run", "relu.forward e1", "--dtype", "i8"], "not i8"),
        (["bench", "run", "relu.forward e1", "--seed", "9223372036854775808"], "--seed 9223372036854775808: expected"),
        (["bench", "run", "relu.forward e1", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["bench", "run", "relu.forward e1", "--pass", "grad_weight"], "--pass grad_weight: none of these problems"),
        (["bench", "run", "relu.forward e1", "--contender", ","], "--contender ',': expected a name"),
        (["bench", "run", "relu.forward e1", "--contender", "torch:nchw@nhwc"], "contender 'torch:nchw@nhwc'"),
        (["bench", "run", "relu.forward e1", "--json", "/dev/null/a.json"], "/dev/null"),
        (["bench", "run", "relu.forward e1", "--json", "a", "--csv", "a"], "a is named twice"),
        (["bench", "model", "lenet5", "--batch", ","], "--batch ',': expected a name or number"),
        (["bench", "sweep", "relu.forward {f32,f64} e3", "--plot", "a.svg"], "no brace has numbers"),
        (["bench", "compare", "nothere.json", "b.json"], "nothere.json: no such file or directory"),
        (["bench", "report"], "which file?"),
        (["bench", "report", "nothere.json"], "nothere.json"),
        (["bench", "report", "--readme"], "cpu-resnet-vgg.json"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("pycv: error: ") and message in err and err.count("\n") == 1
    assert not out


def test_unknown_options_end_with_code_2(capsys):
    for arguments in (["info", "--bork"], ["bench", "run", "--bork"], ["kernels", "--bork"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        assert "--bork" in capsys.readouterr().err


def test_the_installed_command_ends_with_the_exit_code():
    done = subprocess.run([sys.executable, "-m", "pycv.cli", "bork"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
