"""The mutants: an edit of one file, and the test that must turn red."""

from dataclasses import dataclass

SELFTEST = "selftest"  # the native self-test (tests/native), part of the suite as tests/native/test_native.py


@dataclass(frozen=True)
class Mutant:
    file: str
    original: str
    replacement: str
    test: str = SELFTEST  # or what to give to pytest

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.original.split())!r} -> {' '.join(self.replacement.split())!r}"


CPU = "csrc/cpu/"
MUTANTS = [
    Mutant(CPU + "relu.cpp", "for (; i < count; ++i) y[i] = relu<T>(x[i]);", "for (; i + 1 < count; ++i) y[i] = relu<T>(x[i]);"),
    Mutant(CPU + "relu.cpp", "y[i] <= T(0) ? T(0) : grad_output[i]", "y[i] < T(0) ? T(0) : grad_output[i]"),
]
