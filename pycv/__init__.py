"""Hand-written convolution, pooling, normalisation and GEMM kernels as drop-in PyTorch layers."""

from . import settings as _settings
from .registry import UnsupportedError

use = _settings.use
set_default = _settings.set_default

__version__ = "0.1.0"
__all__ = ["UnsupportedError", "set_default", "use"]
