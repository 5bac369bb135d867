"""The torch.library namespace of pycv: where compilers and dispatch modes meet the ops as ``torch.ops.pycv.*``.

An op defined here carries the settings in force at the call as its argument ``settings`` (``Settings.text()``), so
that a compiled graph runs forward and backward under them wherever and whenever it runs. The Python code that emits
the op is traced, so it reads them with ``settings.current_text()``: torch.compile cannot trace a context variable,
but guards on that reading of it, and compiles again when the settings change (tests/ops/test_gemm.py proves both).
"""

from __future__ import annotations

import torch

LIB = torch.library.Library("pycv", "DEF")
