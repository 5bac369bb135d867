"""The native self-test as part of the suite, as compiled for the extension (its objects are used again)."""

import os
import subprocess
import sys

from ..seed import SEED


def test_every_kernel_between_guard_pages():
    """With one instruction set, drawn: another than CI takes under sanitizers. `make test-native` takes them all, and
    three times the variants."""
    command = [sys.executable, "-m", "tests.native", "--drawn", "--variants", "4"]
    result = subprocess.run(command, env=os.environ | {"PYCV_SEED": str(SEED + 1)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
