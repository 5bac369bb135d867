"""Hand-written convolution, pooling, normalisation and GEMM kernels as drop-in PyTorch layers."""

from . import settings as _settings
from .info import info
from .listing import kernels
from .registry import UnsupportedError

use = _settings.use
set_default = _settings.set_default

__version__ = "0.1.0"
__all__ = ["UnsupportedError", "info", "kernels", "set_default", "use"]
