"""`pycv.info()` tells the truth and never fails; `pycv.kernels` is a package and a function."""

import os
import subprocess
import sys

import pytest
import torch

import pycv
import pycv.kernels.cpu
import pycv.kernels.cuda
from pycv import _cpu, registry
from pycv import settings as pycv_settings
from pycv.listing import KernelList


def test_info_says_what_is_there():
    found = pycv.info()
    assert found.version == pycv.__version__
    assert found.torch == torch.__version__
    assert found.threads == torch.get_num_threads()
    assert found.isa == _cpu.isa() and found.isa in found.isas
    assert found.isas[0] == "baseline"
    assert found.kernels["cpu"] == sum(kernel.backend == "cpu" for kernel in registry.kernels())
    assert found.openmp is None or len(found.openmp) == 1
    assert found.verified == ()
    for text in (found.version, found.torch, found.cpu, "GPU kernels"):
        assert text in str(found)


def test_two_openmp_runtimes_are_a_problem(monkeypatch):
    module = sys.modules["pycv.info"]
    monkeypatch.setattr(module, "_openmp_runtimes", lambda: ("/a/libgomp.so.1", "/b/libiomp5.so"))
    assert any("2 OpenMP runtimes" in problem for problem in pycv.info().problems)
    monkeypatch.setattr(module, "_openmp_runtimes", lambda: None)
    assert "unknown on this system" in str(pycv.info())


def test_a_backend_without_its_tool_is_a_problem():
    missing = sys.modules["pycv.info"]._missing_tools
    assert missing({"cpu": 1}, {"nvcc": None, "Triton": None, "Numba": None}) == []
    (problem,) = missing({"numba": 3}, {"nvcc": None, "Triton": None, "Numba": None})
    assert "pip install numba" in problem


def test_a_gpu_that_torch_alone_uses_is_a_problem(monkeypatch):
    module = sys.modules["pycv.info"]
    assert not any("There is a GPU" in problem for problem in pycv.info().problems)
    monkeypatch.setattr(module, "_found", lambda: {"GPU": "Some GPU", "nvcc": None, "Triton": None, "Numba": None})
    monkeypatch.setattr(pycv.kernels.cuda, "_cuda", None)
    monkeypatch.setattr(pycv.kernels.cuda, "missing", "No module named 'pycv._cuda'", raising=False)
    found = pycv.info()
    (problem,) = [text for text in found.problems if "There is a GPU" in text]
    assert "not built (No module named 'pycv._cuda')" in problem and "FORCE_CUDA=1" in problem
    assert found.cuda == "not built (No module named 'pycv._cuda')" and found.cuda in str(found)
    monkeypatch.setattr(module, "_found", lambda: {"GPU": None, "nvcc": "/nvcc", "Triton": None, "Numba": None})
    assert "No GPU is in sight here. " in pycv.info().cuda and "FORCE_CUDA=1 python setup.py" in pycv.info().cuda


def in_a_new_process(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_extension_info_says_why_and_what_to_do():
    out = in_a_new_process(
        "import sys; sys.modules['pycv._cpu'] = None\n"
        "import torch, pycv, pycv.functional as F\n"
        "print(pycv.info())\n"
        "print(F.relu(torch.tensor([-1.0, 2.0])).tolist())\n"
        "print(pycv.kernels('relu.forward e10'))"
    )
    assert "! The C++ kernels cannot be loaded: " in out and "setup.py build_ext --inplace" in out
    assert "Until then the Numba kernels stand in." in out
    assert "[0.0, 2.0]" in out
    assert "the C++ kernels are not built" in out


def test_what_is_not_built_is_said_in_plain_words():
    """As seen from kernels/, which is imported while pycv itself is."""
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name in ('pycv._cpu', 'pycv._cuda'): raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Hidden)\n"
    )
    ask = "pycv.set_default(backend='cpu'); print(pycv.kernels('relu.forward e10'))"
    out = in_a_new_process(f"{hide}import pycv; print(pycv.info()); {ask}")
    assert "not built (No module named 'pycv._cuda')" in out
    assert "the C++ kernels are not built (No module named 'pycv._cpu')" in out
    assert "circular" not in out


def test_an_instruction_set_that_does_not_exist_is_reported():
    out = in_a_new_process("import pycv; print(pycv.info())", PYCV_CPU_ISA="mmx")
    assert "! PYCV_CPU_ISA=mmx: expected baseline, avx2 or avx512" in out


# ------------------------------------------------------------------------------------------------ pycv.kernels


def test_kernels_is_a_package_that_can_be_called():
    assert pycv.kernels.cpu is sys.modules["pycv.kernels.cpu"]
    from pycv.kernels import Kernel

    listed = pycv.kernels()
    assert isinstance(listed, KernelList)
    assert listed == registry.kernels() and all(isinstance(kernel, Kernel) for kernel in listed)
    assert len(str(listed).splitlines()) == len(listed) + 2
    gpus = [(r["op"], r["pass"], r["backend"], r["algorithm"]) for r in listed.rows() if r["GPU state"]]
    assert len(gpus) == len(set(gpus)) and ("gemm", "forward", "cuda", "mma_sync/3xtf32") in gpus
    assert pycv.kernels(op="relu") == registry.kernels("relu")
    with pytest.raises(ValueError, match="op='conv9d'"):
        pycv.kernels(op="conv9d")


def test_kernels_answer_for_a_problem_under_the_settings_in_force():
    text = "conv2d.forward n1c8h9w9 k8r3s3"
    answers = [answer for _, answer in pycv.kernels(text)]
    assert answers[0].startswith("runs it: predicted ") and "could run it" in answers
    assert all(answer == "could run it" or answer.startswith("no: ") for answer in answers[1:])
    with pycv.use(algorithm="direct"):
        answers = {kernel.name: answer for kernel, answer in pycv.kernels(text)}
    assert answers["cpu:direct"] == "runs it: asked for"
    assert answers["cpu:im2col"] == "no: algorithm='direct' was asked for"
    assert pycv_settings.current().algorithm is None


def test_kernels_of_one_name_answer_each_for_itself():
    """A tile of winograd is entered once per filter size or numeric class."""
    answers = {}
    for kernel, answer in pycv.kernels("conv2d.forward n1c8h9w9 k8r3s3"):
        answers.setdefault((kernel.name, kernel.numeric_class), set()).add(answer)
    assert answers["cpu:winograd/f2", "default"] == {"could run it", "no: filter 3x3: this tile is for 5x5"}
    assert not any(
        "class fast" in answer for (_, kind), several in answers.items() if kind != "fast" for answer in several
    )


def test_kernels_answer_where_nothing_may_run():
    with pycv.use(backend="cpu"):
        answers = {kernel.name: answer for kernel, answer in pycv.kernels("relu.forward e10 f16")}
    assert "dtype f16" in answers["cpu:direct"]
    assert answers["torch:torch"] == "no: excluded by the settings in force"
