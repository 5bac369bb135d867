"""The dtypes of problems in NumPy, which has no bfloat16: in memory that is a uint16, as values float32."""

from __future__ import annotations

import numpy as np

MEMORY = {
    "f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "f16": np.dtype(np.float16), "bf16": np.dtype(np.uint16),
    "i64": np.dtype(np.int64), "uint8": np.dtype(np.uint8),
}  # fmt: skip
COMPUTED_IN = {"f16": "f32", "bf16": "f32"}  # storage types; what is stored is rounded once more


def encoded(values: np.ndarray, dtype: str) -> np.ndarray:
    """What lies in memory where these values do, rounded to nearest even."""
    if dtype != "bf16":
        with np.errstate(over="ignore"):
            return values.astype(MEMORY[dtype])
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(single), np.uint16(0x7FFF), nearest)


def decoded(memory: np.ndarray, dtype: str) -> np.ndarray:
    """The values that lie in memory, as a copy."""
    if dtype != "bf16":
        return memory.copy()
    return (memory.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest values of a dtype, in the type that :func:`decoded` gives."""
    return decoded(encoded(values, dtype), dtype)


def rounded_to_tf32(values: np.ndarray, ties_to_even: bool = False) -> np.ndarray:
    """The nearest values with the 11 bits of precision of tf32, ties away from zero or to even."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    half = np.uint32(0xFFF) + (bits >> 13 & 1) if ties_to_even else np.uint32(0x1000)
    bits = (bits + half) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(single), bits.view(np.float32), single).astype(values.dtype)
