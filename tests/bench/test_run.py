"""Rows from `pycv.bench.run`, the JSON they are recorded as, and the tables made of them."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch

from pycv import bench
from pycv.bench import machine, readme, report, runner
from pycv.choice import verified
from tools import cuda

LEVELS = (machine.Level("L1", 1000, 50e9), machine.Level("memory", float("inf"), 10e9))
PEAKS = machine.Peaks(1, "avx2", {"f32": 100e9, "f64": 50e9}, LEVELS)


@pytest.fixture(autouse=True)
def known_peaks(monkeypatch):
    monkeypatch.setattr(runner.machine, "peaks", lambda: PEAKS)


@pytest.fixture(scope="module")
def rows():
    before = machine.peaks
    machine.peaks = lambda: PEAKS
    try:
        problems = ["a: relu.forward e1000", "b: conv2d.forward n1c4h8w8 k8r3s3 f16"]
        return bench.run(problems, ["pycv", "cpu:direct", "torch:nchw"], threads=1, budget=0.5)
    finally:
        machine.peaks = before


def synthetic(name, contender, seconds, **changes):
    row = dict.fromkeys(report.ROW["properties"])
    times = dict.fromkeys(("seconds", "low", "high", "q25", "q75"), seconds)
    row |= {"name": name, "problem": f"relu.forward e{len(name)} f32 cpu", "contender": contender, "kernel": contender}
    return row | times | {"threads": 2, "flops": 1, "bytes": 1, "noisy": False, "gflops": 1.0, "error": 1e-7} | changes


def test_rows_hold_what_was_measured(rows):
    relu = {row["contender"]: row for row in rows if row["name"] == "a"}
    assert relu["pycv"]["kernel"] == relu["cpu:direct"]["kernel"] == "cpu:direct"
    assert relu["torch:nchw"]["kernel"] == "torch:nchw"
    for row in relu.values():
        assert row["problem"] == "relu.forward e1000 f32 cpu"
        assert row["low"] <= row["seconds"] <= row["high"]
        assert row["gflops"] == pytest.approx(1000 / row["seconds"] / 1e9)
        assert row["roofline"] == pytest.approx((1000 / 50e9 + 7000 / 10e9) / row["seconds"])
        assert row["bound"] == "memory" and row["algorithm_flops"] == 1000
        assert row["error"] == 0
        assert row["threads"] == 1


def test_a_contender_that_cannot_run_is_a_row_with_the_reason(rows):
    half = {row["contender"]: row for row in rows if row["name"] == "b"}
    assert half["cpu:direct"]["seconds"] is None
    assert "f16" in half["cpu:direct"]["unavailable"]
    assert half["pycv"]["kernel"] == "torch:torch"
    assert half["pycv"]["seconds"] and half["pycv"]["unavailable"] is None


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("max_pool2d.forward n1c1h8w8 r2s2 u2 p2", "pad should be at most half"),
        ("local_response_norm.forward n1c4h4w4", "kernel size should be greater than zero"),
        ("batch_norm.grad_input n1c4h1w1 training", "Expected more than 1 value per channel"),
        ("conv2d.forward n1c3h4w4 k0r3s3 p1", "at least 1 at dimension 0"),
        ("gemm m4n4k4 a=any/0/0/0", "refers to a single memory location"),
        ("relu.forward e9999999999999999", "can't allocate memory"),
        ("relu.forward e99999999999999999999", "Overflow"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_problem_that_torch_refuses_is_a_row_with_the_reason(problem, reason):
    refused, again, measured = bench.run([problem, "relu.forward e10"], ["pycv", "torch:nchw"], budget=0.1)[:3]
    for row in (refused, again):
        assert row["seconds"] is None and reason in row["unavailable"] and "\n" not in row["unavailable"]
    assert measured["seconds"]


def test_what_fails_at_the_check_alone_is_a_row_with_the_reason(monkeypatch):
    def no_memory(*_):
        raise RuntimeError("no memory")

    once = []

    def prepare(problem, data):
        return no_memory if once else once.append(1) or data["input"].relu

    (row,) = bench.run(["relu.forward e10"], [bench.Contender("once", prepare)], budget=0.05)
    assert row["seconds"] is None and row["unavailable"] == "no memory"
    monkeypatch.setattr(runner.check, "reference", no_memory)
    (row,) = bench.run(["relu.forward e10"], ["torch:nchw"], budget=0.05)
    assert row["seconds"] is None and row["unavailable"] == "no float64 to compare with: no memory"


def test_the_thread_count_is_given_back(rows):
    before = torch.get_num_threads()
    bench.run(["relu.forward e10"], ["torch:nchw"], threads=before + 1, budget=0.1)
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads=0"):
        bench.run(["relu.forward e10"], ["torch:nchw"], threads=0)


def test_what_is_named_twice_is_measured_once():
    rows = bench.run(["relu.forward e10", "b: relu.forward e10", "relu.forward e10"], ["torch:nchw"] * 2, budget=0.1)
    assert [row["name"] for row in rows] == ["relu.forward e10 f32 cpu", "b"]


def test_progress_is_reported_from_start_to_end():
    seen = []
    problems = ["a: relu.forward e10", "b: relu.forward e11"]
    bench.run(problems, ["torch:nchw"], budget=0.1, progress=lambda *now: seen.append(now))
    assert seen == [(0, 2, "this machine's peaks"), (0, 2, "a"), (1, 2, "b"), (2, 2, "done")]


def test_own_contenders_take_part_and_wrong_ones_are_caught():
    wrong = bench.Contender("wrong", lambda problem, data: lambda: data["input"].clone())
    (row,) = bench.run(["relu.forward e100"], [wrong], budget=0.1)
    assert row["kernel"] == "wrong" and row["error"] > 0.1
    assert row["seconds"] is None and re.match(r"refused: its result is wrong by [0-9.e+-]+ of the", row["unavailable"])
    rough = bench.Contender("rough", lambda problem, data: lambda: data["input"].relu() + 1e-3)
    assert bench.run(["relu.forward e100"], [rough], budget=0.1)[0]["seconds"] > 0  # as TF32 is


@pytest.mark.parametrize(
    "result", [lambda x: torch.full_like(x, float("nan")), lambda x: x[:-1].clone()], ids=["nan", "shape"]
)
def test_what_is_no_result_has_no_time(result):
    broken = bench.Contender("broken", lambda problem, data: lambda: result(data["input"]))
    (row,) = bench.run(["relu.forward e100"], [broken], budget=0.1)
    assert all(row[name] is None for name in (*runner.MEASURED, "gflops", "roofline"))
    assert row["unavailable"].startswith("refused: its result is not finite, or has another shape")
    assert "broken: refused" in report.table([row])


def test_bad_input_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(runner, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(ValueError, match="'nobody'"):
        bench.run(["relu.forward e10"], ["nobody"])
    with pytest.raises(ValueError, match="op 'nothing' is not known"):
        bench.run(["relu.forward e10", "nothing.forward n1c1h1w1"])


# ---------------------------------------------------------------------------------------------------- recording


def test_recorded_rows_follow_the_schema_and_come_back(rows, tmp_path):
    path = tmp_path / "deep" / "out.json"
    bench.write(path, rows)
    recorded = bench.read(path)
    assert recorded["rows"] == rows
    assert set(rows[0]) == set(report.ROW["properties"])
    with pytest.raises(FileExistsError):
        bench.write(path, rows)


def test_an_infinite_error_is_recorded_as_null(tmp_path):
    bench.write(tmp_path / "out.json", [synthetic("a", "pycv", 1.0, error=float("inf"), roofline=0.5)])
    assert bench.read(tmp_path / "out.json")["rows"][0]["error"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (8.95e-3, "8.95"), (0.99949, "999"), (0.9996, "1000"), (1.266, "1266")]
)
def test_milliseconds_in_tables(seconds, text):
    row = synthetic("a", "pycv", seconds, noisy=False)
    assert report.milliseconds(row) == text
    assert report.milliseconds(row | {"noisy": True}) == (text if seconds is None else f"~{text}")
    assert report.milliseconds(None) == "-"


def test_every_departure_from_the_schema_is_found(rows):
    good = report.document(rows)
    report.validate(good)

    def spoiled(change):
        bad = copy.deepcopy(good)
        change(bad)
        return bad

    changes = [lambda d, name=name: d["rows"][0].pop(name) for name in rows[0]]
    changes += [lambda d, name=name: d.pop(name) for name in good]
    changes += [lambda d, name=name: d["machine"].pop(name) for name in good["machine"]]
    changes += [
        lambda d: d["rows"][0].update(extra=1),
        lambda d: d["rows"][0].update(seconds="fast"),
        lambda d: d["rows"][0].update(seconds=float("nan")),
        lambda d: d["rows"][0].update(threads=True),
        lambda d: d["rows"][0].update(noisy=1),
        lambda d: d["rows"][0].update(problem=None),
        lambda d: d.update(schema=3),
        lambda d: d.update(rows={}),
    ]
    for change in changes:
        with pytest.raises(ValueError, match="document"):
            report.validate(spoiled(change))


def test_recordings_of_schema_1_are_still_read(rows, tmp_path):
    old = report.document(rows) | {"schema": 1}
    del old["peaks"]
    for row in old["rows"]:
        del row["algorithm_flops"], row["bound"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    recorded = bench.read(tmp_path / "old.json")
    assert recorded["schema"] == 2 and recorded["peaks"] is None
    assert [row["seconds"] for row in recorded["rows"]] == [row["seconds"] for row in rows]
    assert all(row["roofline"] is row["bound"] is None for row in recorded["rows"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": 1e-300}, r"rows\[0\]\.seconds: expected seconds between 1e-12 and 1000000000.0, found 1e-300"),
        ({"high": 1e300}, r"document\.rows\[0\]\.high: expected"),
        ({"high": 1e12}, r"rows\[0\]\.high: expected seconds between"),
        ({"seconds": -1.0}, r"rows\[0\]\.seconds: expected seconds between"),
        ({"flops": 10**400}, r"rows\[0\]\.flops: expected integer"),
        ({"bytes": -1}, r"rows\[0\]\.bytes: expected 0 or more, found -1"),
        ({"gflops": -2.0}, r"rows\[0\]\.gflops: expected 0 or more"),
    ],
)
def test_numbers_that_nobody_measured_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        report.checked(report.document([synthetic("a", "pycv", 1e-3, samples=9, disturbed=0) | change]))


@pytest.mark.parametrize("peaks", [{}, {"threads": 1, "isa": "", "flops": {}, "levels": []}, 5])
def test_peaks_that_are_none_are_refused(peaks):
    document = report.document([synthetic("a", "pycv", 1e-3, samples=9, disturbed=0)])
    levels = [{"name": "memory", "bytes": None, "bandwidth": 1e9}]
    report.checked(document | {"peaks": {"threads": 1, "isa": "", "flops": {"f32": 1e9}, "levels": levels}})
    with pytest.raises(ValueError, match=r"document\.peaks: "):
        report.checked(document | {"peaks": peaks})


def test_small_ratios_keep_two_digits():
    assert [report.times(ratio) for ratio in (2387.264, 1.0, 0.0949, 0.00418)] == [
        "2387.26x",
        "1.00x",
        "0.095x",
        "0.0042x",
    ]


def test_a_file_that_is_no_recording_is_named(tmp_path):
    for text in ("{", "[]", json.dumps({"schema": 1}), "[" * 100_000):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: not a recorded benchmark"):
            bench.read(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "spoiled", [{"low": None}, {"q25": None}, {"gflops": None}, {"seconds": -1}, {"seconds": 0}, {"high": "much"}]
)
def test_rows_that_are_measured_in_part_are_named(spoiled, tmp_path):
    document = report.document([synthetic("a", "pycv", 1.0), synthetic("b", "pycv", 1.0) | spoiled])
    (tmp_path / "bad.json").write_text(json.dumps(document))
    for read in (bench.read, report.read):
        with pytest.raises(ValueError, match=rf"bad\.json: .*rows\[1\]\.{next(iter(spoiled))}: expected"):
            read(tmp_path / "bad.json")


# ------------------------------------------------------------------------------------------------------- tables

TWO = [
    synthetic("first", "pycv", 1e-3),
    synthetic("first", "torch:nchw", 2e-3),
    synthetic("first", "torch:nhwc", 4e-3),
    synthetic("second", "pycv", 4e-3, noisy=True, error=None),
    synthetic("second", "torch:nchw", 2e-3),
    synthetic("second", "torch:nhwc", None, unavailable="no layout"),
]


def test_ratios_and_their_means():
    assert report.geometric_means(TWO) == pytest.approx({"pycv": 1.0, "torch:nchw": 1.0, "torch:nhwc": 0.5})
    nhwc = [dict(row, problem="conv2d.forward n1 f32 nhwc cpu") for row in TWO[:3]]
    assert report.ratio(nhwc[0], nhwc) == 4.0


def test_the_terminal_table_shows_losses_noise_and_what_is_missing():
    lines = bench.table(TWO).splitlines()
    assert lines[2].split() == ["first", "pycv", "pycv", "1.000", "0", "2.00x", "1.0", "-", "1.0e-07"]
    assert lines[5].split() == ["second", "pycv", "pycv", "~4.000", "0", "0.50x", "1.0", "-", "inf"]
    assert lines[8] == "torch:nhwc: no layout (second)"


def test_a_long_name_stands_above_its_lines():
    name = "conv2d.forward n1c64h56w56 k64r3s3 p1 f32 nchw cpu"
    lines = bench.table([*TWO[:2], *(row | {"name": name} for row in TWO[:2])]).splitlines()
    assert lines[2].startswith("first    pycv ") and lines[4] == name and lines[5].startswith("         pycv ")
    assert max(map(len, lines[:-1])) < 80


def test_the_readme_table_is_rewritten_between_its_markers_only(tmp_path):
    result, text = tmp_path / "r.json", tmp_path / "README.md"
    bench.write(result, TWO)
    text.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    readme.rewrite(result, text)
    once = text.read_text()
    assert once.startswith(f"before\n{readme.BEGIN}\n| layer |") and once.endswith(f"{readme.END}\nafter\n")
    assert "old" not in once
    assert "| `first` | 1 | 2 | 4 | 2.00x | 4.00x | 1e-07 |" in once
    assert "| `second` | ~4 | 2 | - | 0.50x | - | - |" in once
    assert "| geometric mean |  |  |  | **1.00x** | **4.00x** |  |" in once
    readme.rewrite(result, text)
    assert text.read_text() == once


def test_the_table_of_gpu_kernels_in_the_readme_is_current():
    """`python -m pycv.bench.readme` makes it so."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    between = text.partition(readme.KERNELS_BEGIN)[2].partition(readme.KERNELS_END)[0]
    assert between == f"\n{readme.kernel_table()}"
    assert readme.COMPILED_FOR == cuda.DEFAULT_ARCHITECTURES


def test_the_table_says_where_kernels_were_verified(monkeypatch):
    record = verified.Verification("relu", "forward", "cuda:direct", "Some GPU", "2026-01-31", "abc")
    monkeypatch.setattr(verified, "records", lambda: (record,))
    lines = [line for line in readme.kernel_table().splitlines() if line.startswith("| relu: direct")]
    assert [line.split(" | ")[1] for line in lines] == ["forward", "grad_input"]
    assert lines[0].endswith("| Some GPU (2026-01-31, abc) |") and lines[1].endswith("| not yet |")


def test_a_readme_without_markers_is_left_alone(tmp_path, monkeypatch):
    text = tmp_path / "README.md"
    text.write_text("no markers\n")
    bench.write(tmp_path / "r.json", TWO)
    with pytest.raises(ValueError, match="markers"):
        readme.rewrite(tmp_path / "r.json", text)
    assert text.read_text() == "no markers\n"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cpu-resnet-vgg\.json"):
        readme.rewrite()
