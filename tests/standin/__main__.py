"""Runs a module with the stand-in for a GPU in place: PYCV_TEST_DEVICE=standin python -m tests.standin MODULE ..."""

import runpy
import sys

from pycv import timing_device
from pycv.bench import gpu

from .. import backend
from ..backend import STANDIN

if not STANDIN:
    sys.exit(__doc__)
backend.be_there()
timing_device.FLUSHED = 1 / 16  # there is no cache to flush
gpu.SIDES, gpu.COPIED_BYTES, gpu.BURST_SECONDS = (64,), 2**16, 1e-4  # and nothing to be learnt from its peaks
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
