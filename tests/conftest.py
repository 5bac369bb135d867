"""What every test run shares: its seed, which it prints, and a clean start for every test."""

from __future__ import annotations

import os
import random
import zlib
from functools import cache

import hypothesis
import pytest
import torch

from pycv import registry, settings
from pycv.bench import machine
from pycv.choice import model, verified
from pycv.kernels import Kernel, cuda
from pycv.ops import _workspace
from tools import simt

from . import backend
from .fuzz.check import in_tile
from .seed import SEED

hypothesis.settings.register_profile(
    "pycv", deadline=None, database=None, report_multiple_bugs=False, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("pycv")


def pytest_configure() -> None:
    """On a device, what test modules make as they are imported is there, too."""
    if reason := backend.missing():
        raise pytest.UsageError(reason)
    backend.be_there()


def pytest_report_header() -> str:
    threads = torch.get_num_threads()
    where = torch.cuda.get_device_name() if backend.DEVICE == "cuda" else f"{threads} threads"
    return f"pycv: seed {SEED} (PYCV_SEED={SEED} repeats it), torch {torch.__version__}, {where}"


def pytest_collection_modifyitems(items) -> None:
    """The CUDA kernels are compiled for host execution if anything selected runs them."""
    on_host = cuda.on_host() or backend.STANDIN or any("tests/cuda" in str(item.path) for item in items)
    if on_host and backend.BY_HOST:
        simt.build(progress=False)


@pytest.fixture(scope="session", autouse=True)
def _preferred():
    """PYCV_TEST_PREFER names the algorithm that the op tests are to run, where a backend has several."""
    if name := os.environ.get("PYCV_TEST_PREFER"):
        settings.set_default(prefer=name)
    yield


@pytest.fixture
def only_kernels(monkeypatch):
    """Puts kernels in the place of all that an op and pass have, until the test ends; nothing remembers them then."""

    def install(op: str, pass_: str, *kernels: Kernel) -> None:
        monkeypatch.setitem(registry._by_op(), (op, pass_), kernels)
        registry.algorithms.cache_clear()

    yield install
    registry.algorithms.cache_clear()


@pytest.fixture(autouse=True)
def _same_start():
    """Tests neither depend on nor change each other's random numbers and thread count."""
    threads = torch.get_num_threads()
    # torch.manual_seed takes a millisecond: it notes down where it was called, for every kind of device.
    (torch.manual_seed if backend.DEVICE == "cuda" else torch.default_generator.manual_seed)(SEED)
    random.seed(SEED)
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What this machine's user has tuned changes no test, and no test changes that."""
    before = os.environ.get("PYCV_CACHE_DIR")
    os.environ["PYCV_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("PYCV_CACHE_DIR")
    if before is not None:
        os.environ["PYCV_CACHE_DIR"] = before


@pytest.fixture(scope="session", autouse=True)
def _own_peaks():
    """No test measures what this machine can do at best, on which, busy as it is with tests, rows would be refused."""
    levels = (machine.Level("L1", 1e5, 1e15), machine.Level("memory", float("inf"), 1e14))
    before = machine._peaks
    machine._peaks = lambda threads: machine.Peaks(threads, "test", {"f32": 1e15, "f64": 1e15}, levels)
    yield
    machine._peaks = before


@pytest.fixture(scope="session", autouse=True)
def _own_table():
    """Which kernel runs by default depends on no recorded table: one of pycv's wherever there is one, and an exact one,
    so that sparse integers give exact results. Inexact kernels and torch run where a test asks for them. On a GPU its
    kernels count as verified."""
    inexact = [kernel for kernel in registry.kernels() if kernel.numeric_class != "strict"]
    slow = {f"conv.{kernel.pass_} {kernel.name} any": {"calls": 1.0} for kernel in inexact}
    table, before = model.Table("none: that of the tests", model.Rates(), {1: slow}), model._shipped
    trusted = verified.trusted
    model._shipped = cache(lambda isa: table)
    if backend.DEVICE == "cuda":
        verified.trusted = lambda kernel, problem: True
    yield
    model._shipped, verified.trusted = before, trusted


@pytest.fixture(scope="session", autouse=True)
def _drawn_tiles():
    """Where nothing was measured, GPU kernels that have the choice compute in tiles that the seed draws for each
    problem: autotune may take any of them."""
    before = registry._plan

    def drawn(kernel, problem, *how):
        number = zlib.crc32(f"{SEED} {problem}".encode()) if kernel.on_gpu else 0
        return before(in_tile(kernel, problem, number), problem, *how)

    registry._plan = drawn
    yield
    registry._plan = before


@pytest.fixture
def fresh_memory_is_nan(monkeypatch):
    """What torch allocates starts as NaN (and indices as the largest integer), so that an element left out shows."""
    monkeypatch.setattr(_workspace, "_used", _workspace._fresh)
    torch.use_deterministic_algorithms(True, warn_only=backend.DEVICE == "cuda")  # there torch's own are not all
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
