"""Tests of pycv, one module per module of the package.

Threads that wait do so asleep: several test processes on few cores would otherwise spend their time spinning. The
OpenMP runtime reads this when torch loads it, so it has to stand before the first import of torch. So has the stand-in
for a GPU, which torch would look for in vain later.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Small stand-ins for packages that are not installed; those that are come first.
sys.path.append(str(Path(__file__).parent / "standin/packages"))

if os.environ.get("PYCV_TEST_DEVICE") == "standin":
    from . import standin

    standin.load()
