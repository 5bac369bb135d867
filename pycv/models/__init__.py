"""Architectures built from pycv's layers, one file per family, and the arithmetic that describes them."""

from .arithmetic import macs, output_size, parameter_count
from .lenet import LeNet5, LeNet5Original, lenet5, lenet5_original
from .registry import create, list_models

__all__ = [
    "LeNet5", "LeNet5Original", "create", "lenet5", "lenet5_original", "list_models", "macs", "output_size",
    "parameter_count",
]  # fmt: skip
