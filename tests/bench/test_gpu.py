"""The peaks of a GPU: kept, joined, and what rows are measured by. By default without one; `full` on the stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pycv import bench, cli
from pycv.bench import gpu, machine, placing, plots, problems, report, roofline, runner
from pycv.problem import parse
from tests.backend import for_cpu
from tests.bench.streams import Streams

ROOT = Path(__file__).parents[2]
LEVELS = (machine.Level("L2", 50e6, 5e12), machine.Level("memory", float("inf"), 2e12))
FLOPS = {"f64": 60e12, "f32": 50e12, "tf32": 400e12, "f16": 700e12, "bf16": 700e12}
PEAKS = machine.Peaks(1, "", FLOPS, LEVELS, "Some GPU (9.0)")
CONV = "conv2d.forward n32c256h56w56 k256r3s3 p1 cuda"

pytestmark = for_cpu


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """There is a GPU, and this is what is measured of it."""
    Streams(monkeypatch)
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(L2_cache_size=50e6, uuid="u"))
    rates = {torch.float64: 60e12, torch.float16: 700e12, torch.bfloat16: 700e12}
    tensor = lambda: 400e12 if torch.backends.cuda.matmul.allow_tf32 else 50e12  # noqa: E731
    monkeypatch.setattr(gpu, "_product_rate", lambda dtype: rates.get(dtype) or tensor())
    monkeypatch.setattr(gpu, "_copy_rate", lambda bytes: 2e12 if bytes == gpu.COPIED_BYTES else 5e12)
    gpu._peaks.cache_clear()
    yield tmp_path
    gpu._peaks.cache_clear()


def test_peaks_are_measured_once_and_kept(own_cache, monkeypatch):
    before = torch.backends.cuda.matmul.allow_tf32
    assert gpu.recorded() is None and gpu.peaks() == PEAKS and torch.backends.cuda.matmul.allow_tf32 == before
    gpu._peaks.cache_clear()
    monkeypatch.setattr(gpu, "_product_rate", lambda dtype: 100e12)
    assert gpu.peaks() == gpu.recorded() == PEAKS
    assert gpu.remeasured().flops == FLOPS | {"f64": 100e12, "f32": 100e12} == gpu.peaks().flops
    assert machine.Peaks.from_json(json.loads(json.dumps(PEAKS.to_json()))) == PEAKS


def test_a_recording_of_a_gpu_holds_its_peaks_and_its_state(own_cache, monkeypatch):
    told = "580.1, 1980 MHz, 1980 MHz, 2619 MHz, 45, 300.00 W, 0x0000000000000004\n"
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=told))
    gpu.peaks()
    row = dict.fromkeys(report.ROW["properties"]) | {
        "name": "a", "problem": "relu.forward e1 f32 cuda", "contender": "cuda", "threads": 2, "flops": 1, "bytes": 8,
    }  # fmt: skip
    found = report.document([row])
    report.validate(found)
    assert found["peaks"] == PEAKS.to_json() and found["machine"]["gpu"] == "Some GPU (9.0)"
    assert "SM clock 1980 MHz" in found["machine"]["gpu state"]
    assert found["machine"]["gpu state"].endswith("throttled by 0x0000000000000004")
    assert "gpu" not in report.document([row | {"problem": "relu.forward e1 f32 cpu"}])["machine"]


def test_no_gpu_is_said_in_words(capsys, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="torch sees no GPU"):
        gpu.peaks()
    assert gpu.recorded() is None
    with pytest.raises(ValueError, match="e10 f32 cuda': torch sees no GPU here"):
        bench.run(["relu.forward e10 cuda"])
    for command in (["run", "relu.forward e10"], ["roofline"], ["run", "--set", "demo"]):
        assert cli.main(["bench", *command, "--device", "cuda"]) == 2
        assert "cuda': torch sees no GPU here" in capsys.readouterr().err
    assert cli.main(["bench", "sweep", "relu.forward e{1,2} cuda"]) == 2


@pytest.mark.parametrize(
    ("kernel", "operations", "peak"),
    [
        ("cuda:direct", 1, "f32"),
        ("cuda:mma_sync/tf32", 1, "tf32"),
        ("triton:implicit_gemm/3xtf32", 3, "tf32"),
        ("cuda:winograd/f2", 16 / 36, "f32"),
        ("cuda:winograd/f4", 36 / 144, "f32"),
    ],
)
def test_the_operations_of_a_gpu_kernel_are_its_own(kernel, operations, peak):
    problem = parse(CONV)
    placed = roofline.place(problem, None, PEAKS, kernel)
    assert placed.flops == pytest.approx(operations * problem.flops) and placed.bound == "compute"
    assert placed.seconds == pytest.approx(operations * problem.flops / FLOPS[peak])


@pytest.mark.parametrize("kernel", ["cuda:fft", "torch:nchw", "torch:torch"])
def test_what_is_not_known_does_not_bound(kernel):
    placed = roofline.place(parse(CONV), None, PEAKS, kernel)
    assert placed.flops is None and placed.bound == "memory"
    assert roofline.place(parse("gemm.forward m4096n4096k4096 cuda"), None, PEAKS, kernel).bound == "compute"


def test_rows_of_a_gpu_are_not_measured_by_the_cpu_nor_the_other_way_round():
    assert roofline.place(parse("relu.forward e10"), None, PEAKS) is None
    placed = roofline.place(parse("relu.forward e1000 bf16 cuda"), None, PEAKS, "cuda:direct")
    assert placed.bound == "L2" and placed.seconds == pytest.approx(4000 / 5e12)


def test_the_tables_and_the_plot_take_a_gpu(own_cache):
    text = placing.gpu_peak_table()
    assert text.startswith("Some GPU (9.0)\n") and "bf16             700.0" in text and "2000" in text
    drawn = plots.roofline(PEAKS, {"cuda": [(100.0, 1e5, "a")]}, "title")
    assert all(f"{dtype} {rate / 1e9:.0f} GFLOP/s" in drawn for dtype, rate in FLOPS.items())


def test_a_call_that_there_is_no_time_for_is_a_row_with_the_reason(monkeypatch):
    monkeypatch.setattr(runner, "random_data", lambda *_: {})
    monkeypatch.setattr(runner.device, "measure", lambda *_, **__: ({}, {"slow": "no time"}))
    slow = bench.Contender("slow", lambda problem, data: lambda: None)
    (row,) = runner._measure_case(problems.case("relu.forward e10 cuda"), [slow], None, 1.0, 0.02, 0, False)
    assert row["unavailable"] == "no time" and row["seconds"] is None


@pytest.mark.full
def test_the_command_on_a_stand_in_for_a_gpu(tmp_path):
    pytest.importorskip("pycv._cpu")
    arguments = [
        "pycv.cli",
        "bench",
        "roofline",
        "--device",
        "cuda",
        "--budget",
        "0.5",
        "--json",
        str(tmp_path / "a.json"),
    ]
    command = [sys.executable, "-m", "tests.standin", *arguments, "relu.forward e1000", "gemm.forward m16n16k16"]
    environment = os.environ | {"PYCV_TEST_DEVICE": "standin", "PYCV_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = bench.read(tmp_path / "a.json")
    assert set(recorded["peaks"]["flops"]) == set(FLOPS) and recorded["machine"]["gpu"] == "stand-in GPU (9.0)"
    placed = [row for row in recorded["rows"] if row["roofline"]]
    assert placed and {row["kernel"].partition(":")[0] for row in placed} == {"cuda"}
