"""The native self-test as part of the suite, as compiled for the extension (its objects are used again)."""

import subprocess
import sys


def test_every_kernel_between_guard_pages():
    result = subprocess.run([sys.executable, "-m", "tests.native"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
