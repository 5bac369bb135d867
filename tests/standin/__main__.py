"""Runs a module with the stand-in for a GPU in place: PYCV_TEST_DEVICE=standin python -m tests.standin MODULE ..."""

import runpy
import sys

from pycv.bench import device

from .. import backend
from ..backend import STANDIN

if not STANDIN:
    sys.exit(__doc__)
backend.be_there()
device.FLUSH_BYTES = 2**16  # there is no cache to flush
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
