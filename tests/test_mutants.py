"""The list of mutants: no file of kernels in Python is without one, and each edit applies."""

import re
from pathlib import Path

from .mutants.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
KERNEL = re.compile(r"^@(triton\.jit|kernel|inner|summed|cuda\.jit|numba\.njit)\b", re.MULTILINE)


def test_every_file_with_a_kernel_in_python_has_one():
    files = [file for folder in ("numba", "triton") for file in (ROOT / "kernels" / folder).glob("*.py")]
    with_kernels = {file.relative_to(ROOT).as_posix() for file in files if KERNEL.search(file.read_text())}
    assert len(with_kernels) > 30
    assert not with_kernels - {mutant.file for mutant in MUTANTS}


def test_every_edit_applies_once():
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text().count(mutant.original) == 1, mutant
