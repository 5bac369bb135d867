"""Hand-written convolution, pooling, normalisation and GEMM kernels as drop-in PyTorch layers."""

from . import registry as _registry
from . import settings as _settings
from .explain import explain
from .info import info
from .listing import kernels
from .nn.enable import enable
from .nn.patch import patch
from .nn.prepared import invalidate
from .registry import UnsupportedError, register

use = _settings.use
set_default = _settings.set_default

__version__ = "0.1.0"
__all__ = [
    "UnsupportedError",
    "enable",
    "explain",
    "info",
    "invalidate",
    "kernels",
    "patch",
    "register",
    "set_default",
    "use",
]

_registry.load_named()
