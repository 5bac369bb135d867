"""The Numba backend as a whole: when it runs, on which threads, what it says, and the kernels of users."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import pycv
from pycv import functional as PF
from pycv import registry
from pycv.kernels import Kernel
from pycv.kernels import numba as backend
from pycv.problem import parse

from ..concurrency.test_threads import assert_network_is_right
from ..fuzz import check

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EXTENSION = "import sys; sys.modules['pycv._cpu'] = None\n"


def in_a_new_process(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | environment, cwd=ROOT, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numba_is_installed():
    """Here its absence is a failure: nothing of this backend would be tested."""
    assert backend.missing() is None


# ------------------------------------------------------------------------------------------------ when it runs


def chosen(problem="relu.forward e100000 f32 cpu", **settings):
    with pycv.use(**settings):
        return registry.choose(parse(problem), pycv.settings.current(), 1)


def test_it_stands_back_where_the_extension_is():
    assert chosen().kernel.backend != "numba"
    assert "numba:direct: it stands in for the C++ kernels, which are built" in chosen().rejected
    assert chosen(backend="numba").kernel.name == "numba:direct"
    assert chosen(algorithm="direct").kernel.name == "cpu:direct"
    gemm = "gemm.forward m9n9k9 f32 cpu"
    assert chosen(gemm, algorithm="blocked").kernel.name == "numba:blocked"
    assert chosen(gemm, prefer="blocked").kernel.name == "numba:blocked"


def test_it_stands_in_where_the_extension_is_not():
    out = in_a_new_process(
        WITHOUT_EXTENSION + "import torch, pycv, pycv.functional as F\n"
        "with pycv.registry.record() as calls, pycv.use(autotune=True):\n"
        "    print(F.relu(torch.tensor([-1.0, 2.0])).tolist())\n"
        "print(calls[0].choice.kernel.name, calls[0].choice.reason)\n"
        "with pycv.use(backend='torch'), pycv.registry.record() as calls: F.relu(torch.ones(3))\n"
        "print(calls[0].choice.kernel.name)\n"
        "print(pycv.info())"
    )
    assert "[0.0, 2.0]\nnumba:direct it stands in for the C++ kernels, which are not built\ntorch:torch\n" in out
    assert "none: the Numba kernels stand in" in out and "Until then the Numba kernels stand in." in out
    assert re.search(r"Numba kernels +\d+ compiled in \d+ s so far, kept in /", out)
    assert "OpenMP runtimes in one process" not in out


@pytest.mark.full
def test_without_either_torch_runs_everything():
    out = in_a_new_process(
        WITHOUT_EXTENSION + "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numba' else find(name, *a)\n"
        "import torch, pycv, pycv.functional as F\n"
        "with pycv.registry.record() as calls: print(F.relu(torch.tensor([-1.0, 2.0])).tolist())\n"
        "print(calls[0].choice.kernel.name)\n"
        "print(pycv.info())"
    )
    assert "[0.0, 2.0]\ntorch:torch\n" in out and "torch runs everything" in out
    assert "none can run: Numba is not installed: pip install numba" in out
    assert "! The numba kernels need Numba, which was not found: pip install numba." in out


# ------------------------------------------------------------------------------------------------ threads, compilation


def test_torchs_runtime_and_the_users_thread_count():
    """One OpenMP runtime, torch's thread count, and what the user has told Numba is as it was."""
    out = in_a_new_process(
        "import re, sys, torch, pycv, pycv.functional as F\n"
        "pycv.kernels(); assert 'numba' not in sys.modules\n"  # until it is needed
        "import numba\n"
        "torch.set_num_threads(2); x = torch.randn(200_000)\n"
        "with pycv.use(backend='numba'):\n"
        "    F.relu(x); numba.set_num_threads(1); assert torch.equal(F.relu(x), x.clamp(min=0))\n"
        "print(numba.get_num_threads(), numba.threading_layer())\n"
        "print(*set(re.findall(r'\\S*/lib(?:gomp|iomp5|omp)[-.\\w]*\\.so\\S*', open('/proc/self/maps').read())))",
        NUMBA_NUM_THREADS="2",
    )
    first, runtimes = out.splitlines()
    assert first == "1 omp"
    assert len(runtimes.split()) == 1, runtimes


def test_several_python_threads_at_once():
    """Forward and backward, each thread with problems of its own; each has the thread count that it has told Numba."""
    import numba

    start = threading.Barrier(4)

    def work(seed):
        start.wait(60)
        numba.set_num_threads(1)
        with pycv.use(backend="numba"):
            for step in range(3):
                assert_network_is_right((seed + step) % 5)
        return numba.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [1] * 4


def test_after_fork():
    """A child has none of the threads of its parent: it compiles for one of its own and is right."""
    with pycv.use(backend="numba"):
        torch.set_num_threads(2)
        x = torch.randn(150_001)
        expected = PF.relu(x)
        child = os.fork()
        if child == 0:
            try:
                right = (PF.relu(x).numpy() == expected.numpy()).all()
                problem = parse("relu.forward e40000 f32 cpu")
                (kernel,) = check.kernels_of("numba", problem)
                os._exit(0 if right and check.trial(problem, kernel, check.Variant(threads=3)) is None else 3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(PF.relu(x).numpy(), expected.numpy())


def test_a_long_compilation_is_announced(monkeypatch, capsys):
    from pycv.kernels.numba import compiled

    monkeypatch.setattr(compiled, "PATIENCE", 0.01)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with compiled._announced("gemm.product for float32"):
        compiled.time.sleep(0.3)
    assert "compiling gemm.product for float32 with Numba, once on this machine" in capsys.readouterr().err


@pytest.mark.full
def test_what_was_compiled_is_kept(tmp_path):
    """Compiled once, recorded, and loaded by the next process."""
    code = (
        "import torch, pycv\nwith pycv.use(backend='numba'): pycv.functional.relu(torch.ones(3))\n"
        "from pycv.kernels.numba import disk; print(len(disk.records()), disk.records()[0].kernel)"
    )
    for _ in range(2):
        assert in_a_new_process(code, NUMBA_CACHE_DIR=str(tmp_path)) == "1 relu.forward\n"


# ------------------------------------------------------------------------------------------------ users' kernels


def test_the_example():
    """Loaded by name, as every command does, and run."""
    out = in_a_new_process(
        "import sys, pycv\nfrom pycv import cli\n"
        "sys.modules['custom_kernel'].main()\nsys.exit(cli.main(['kernels', '--op', 'relu']))",
        PYCV_KERNELS="examples/custom_kernel.py",
    )
    assert "relu.forward e1000 f32 cpu ran on numba:mine: asked for" in out
    assert re.search(r"relu +forward +numba +mine +strict", out)
    script = "import runpy, sys\nrunpy.run_path('examples/custom_kernel.py', run_name='__main__')"
    assert "ran on numba:mine" in in_a_new_process(script, PYCV_KERNELS="examples/custom_kernel.py")


def test_an_edited_kernel_is_measured_again(tmp_path):
    """What was measured is kept under the contents of users' files, too."""
    code = "from pycv.choice import device\nprint(device.kernel_hash(), device.gpu_kernel_hash())"
    example, edited = Path("examples/custom_kernel.py"), tmp_path / "edited.py"
    edited.write_text(example.read_text() + "\n# another one\n")
    hashes = [in_a_new_process(code, PYCV_KERNELS=str(file)).split() for file in ("", example, edited)]
    assert len({cpu for cpu, _ in hashes}) == len({gpu for _, gpu in hashes}) == 3


def test_the_fuzzer_without_the_extension():
    out = in_a_new_process(
        WITHOUT_EXTENSION + "import runpy\nsys.argv[1:] = ['--op', 'relu', '--n', '20']\n"
        "runpy.run_module('tests.fuzz', run_name='__main__')",
        PYCV_TEST_BACKEND="numba",
    )
    assert "the C++ kernels are not built" in out and "0 mismatches" in out, out


def test_registering_what_makes_no_sense():
    def entry(**changes):
        fields = {"op": "relu", "pass_": "forward", "backend": "numba", "algorithm": "mine"} | changes
        return Kernel(**fields, supports=lambda problem: None, plan=lambda *arguments: None)

    for changes, message in (
        ({"op": "tanh"}, "there is no tanh.forward"),
        ({"pass_": "grad_weight"}, "there is no relu.grad_weight"),
        ({"backend": "opencl"}, "backend='opencl'"),
        ({"algorithm": "direct"}, "has a kernel numba:direct already"),
    ):
        with pytest.raises(ValueError, match=message):
            pycv.register(entry(**changes))
