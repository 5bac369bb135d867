"""Options of the suites: the problem sets and contenders of `pycv bench`."""

import pytest

from pycv import bench
from pycv.bench.contenders import DEFAULT, contender


def pytest_addoption(parser):
    group = parser.getgroup("pycv")
    group.addoption("--set", action="append", default=[], help="problem sets, or files of problems; default: demo")
    group.addoption("--contender", default=",".join(DEFAULT), help="default: %(default)s")
    group.addoption("--pass", dest="passes", default="", help="forward,grad_input,grad_weight")


def pytest_configure(config):
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("the suites need pytest-benchmark: pip install pytest-benchmark")


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    options = metafunc.config.option
    try:
        cases = [case for name in options.set or ["demo"] for case in bench.load(name)]
        cases = bench.variants(cases, [name for name in options.passes.split(",") if name])
        contenders = [contender(name) for name in options.contender.split(",")]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("case", cases, ids=lambda case: case.name)
    metafunc.parametrize("contender", contenders, ids=lambda contender: contender.name)
