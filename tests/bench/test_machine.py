"""Peaks and description of the machine."""

import json
import subprocess

import pytest
import torch

from pycv import _cpu
from pycv.bench import machine

MEASURED = machine.Peaks(
    2, "avx2", {"f32": 100e9}, (machine.Level("L2", 1000, 50e9), machine.Level("memory", float("inf"), 10e9))
)


REAL = machine._peaks  # the tests' own stand in for it (tests/conftest.py)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Peaks are measured, badly and quickly, and kept here."""
    monkeypatch.setenv("PYCV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "_peaks", REAL)
    monkeypatch.setattr(machine, "BURST_SECONDS", 0.001)
    monkeypatch.setattr(machine, "MAX_BURSTS", 3)
    REAL.cache_clear()
    yield tmp_path
    REAL.cache_clear()


def test_a_roofline_has_a_compute_and_a_memory_side():
    assert MEASURED.roofline_seconds(flops=1e9, bytes=100) == pytest.approx(0.01)
    assert MEASURED.roofline_seconds(flops=1, bytes=1000) == pytest.approx(1000 / 50e9)
    assert MEASURED.memory_bandwidth == 10e9


def test_what_the_nearer_cache_holds_may_come_from_there():
    assert MEASURED.roofline_seconds(flops=1, bytes=5000) == pytest.approx(1000 / 50e9 + 4000 / 10e9)
    assert MEASURED.move_seconds(500, working_set=5000) == pytest.approx(500 / 50e9)
    assert MEASURED.level_of(1000).name == "L2" and MEASURED.level_of(1001).name == "memory"


def test_peaks_are_measured_once_and_kept(own_cache, monkeypatch):
    peaks = machine.peaks(1)
    assert machine.peaks(1) is peaks
    assert peaks.threads == 1 and peaks.isa == _cpu.isa()
    assert min(peaks.flops["f32"], peaks.flops["f64"], *(level.bandwidth for level in peaks.levels)) > 1e6
    assert peaks.levels[-1].name == "memory"
    rates = [level.bandwidth for level in peaks.levels]
    assert rates == sorted(rates, reverse=True)
    REAL.cache_clear()
    monkeypatch.setattr(machine, "_measure", lambda threads: pytest.fail("measured again"))
    assert machine.peaks(1) == machine.recorded(1) == peaks
    assert machine.recorded(2) is None or torch.get_num_threads() == 1


def test_measuring_again_keeps_the_better_rates(own_cache, monkeypatch):
    levels = (machine.Level("L2", 1000, 40e9), machine.Level("memory", float("inf"), 20e9))
    found = iter([MEASURED, machine.Peaks(2, "avx2", {"f32": 90e9}, levels)])
    monkeypatch.setattr(machine, "_measure", lambda threads: next(found))
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert machine.peaks(2) == MEASURED
    again = machine.remeasured(2)
    assert again.flops == {"f32": 100e9} and [level.bandwidth for level in again.levels] == [50e9, 20e9]
    assert machine.peaks(2) == again == machine.Peaks.from_json(again.to_json())


def test_peaks_that_make_no_sense_are_measured_again(own_cache, monkeypatch):
    monkeypatch.setattr(machine, "_measure", lambda threads: MEASURED)
    value = {"schema": 1, "threads": {"1": MEASURED.to_json() | {"flops": {"f32": 0}}}}
    path = machine._file(machine.device.current())
    path.write_text(json.dumps(value))
    with pytest.warns(UserWarning, match=path.name):
        assert machine.peaks(1) == MEASURED


def test_the_peaks_of_another_instruction_set_are_measured_in_a_process_of_its_own(own_cache, monkeypatch):
    seen = {}

    def process(command, env, **_):
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, json.dumps(MEASURED.to_json()), "")

    monkeypatch.setattr(machine.subprocess, "run", process)
    assert machine.peaks_of("baseline", 1) == MEASURED or _cpu.isa() == "baseline"
    assert seen.get("PYCV_CPU_ISA", "baseline") == "baseline"


def test_more_threads_than_cores_have_the_peak_of_the_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "_peaks", lambda threads: threads)
    assert machine.peaks(64) == 3
    assert machine.peaks() == min(torch.get_num_threads(), 3)


def test_the_best_burst_counts_once_three_agree():
    rates = iter([5.0, 9.99, 2.0, 10.0, 9.98, 99.0])
    assert machine._best(2, lambda threads: next(rates) if threads == 2 else 1.0) == 10.0
    assert machine._best(2, lambda threads: 1.0 if threads == 2 else 7.0) == 7.0


def test_cpu_lists():
    assert machine._cpu_list("0-3,8\n") == [0, 1, 2, 3, 8]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_fma_probe_counts_work(threads, dtype):
    assert _cpu.fma_flops(threads, dtype, 0.001) > 1e6


@pytest.mark.parametrize("bytes", [4096, 100_001, 40 << 20])
def test_the_memory_probes_take_any_size(bytes):
    assert _cpu.read_bandwidth(2, bytes, 0.001) > 1e6
    assert _cpu.copy_bandwidth(2, bytes, 0.001) > 1e6


def test_probes_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="threads must be 1 or more, not 0"):
        _cpu.fma_flops(0, "f32", 0.001)
    with pytest.raises(ValueError, match="f16"):
        _cpu.fma_flops(1, "f16", 0.001)
    assert _cpu.read_bandwidth(1, 0, 0.001) == _cpu.copy_bandwidth(1, 0, 0.001) == 0


def test_a_description_says_where_a_result_comes_from():
    found = machine.describe()
    assert found["torch"] == torch.__version__
    assert found["isa"] == _cpu.isa()
    assert found["cpu"] and found["cores"] >= 1
