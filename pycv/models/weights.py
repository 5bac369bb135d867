"""Reading a weight file into a model: what is missing, unexpected or of another shape is said by name.

``.pth`` (and whatever else torch.save writes) is read with ``weights_only=True``, so that a file cannot run code;
``.safetensors`` needs the library of that name.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .transfer import auxiliary_heads, heads

_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")  # torch.compile around or within DataParallel
NAMED = 20  # keys in a message; of more, the number


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a file of weights into a model and return the model.

    The last layer (and those of auxiliary heads) keeps its own weights, with a warning, where the file has another
    number of classes; auxiliary heads that the model was built without are left out. Everything else must agree.
    A checkpoint that holds its weights under ``state_dict`` or ``model``, or has ``module.`` (from DataParallel) or
    ``_orig_mod.`` (from torch.compile) before every key, is taken too.

    Raises
    ------
    RuntimeError
        If keys are missing or unexpected, or shapes differ: all are named, and the model is as it was.
    ValueError
        If the file holds no weights.
    ImportError
        For a ``.safetensors`` file without the library.
    """
    weights = _unwrapped(read(path), path)
    own = model.state_dict()
    for key in [key for key in weights if key not in own and _is_auxiliary(key, model)]:
        del weights[key]
    left = _heads_of_other_size(model, weights, own)
    described = [f"{key} ({_shape(weights[key])} in the file, {_shape(own[key])} here)" for key in left]
    weights.update({key: own[key] for key in left})
    _require_agreement(model, weights, path)
    model.load_state_dict(weights, strict=False)
    if left:
        warnings.warn(
            f"{path}: the head was not loaded and keeps its own weights: {', '.join(described)}", stacklevel=2
        )
    return model


def read(path: str | Path) -> Any:
    """The content of a weight file, on the CPU.

    Raises OSError if it cannot be read, ValueError if it is no such file, ImportError as :func:`load_weights`.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError:
            raise ImportError(
                f"{path}: reading .safetensors needs the library of that name: pip install 'pycv[safetensors]'"
            ) from None
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: no .safetensors file ({error})") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever unpickling other bytes may raise
        raise ValueError(f"{path}: no file of weights alone ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """One line of what torch says; of what it refuses to run only the name, not how to have it run all the same."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return text.strip().partition("\n")[0].partition(". Please use")[0] or type(error).__name__


def _unwrapped(content: Any, path: str | Path) -> dict[str, Tensor]:
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path}: expected a state_dict, tensors by key, not {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError(f"{path}: expected a state_dict, tensors by name, but a key is {key!r}")
        if value.is_complex():
            raise ValueError(f"{path}: {key} is complex: loading would drop its imaginary part")
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def _is_auxiliary(key: str, model: nn.Module) -> bool:
    """Of a head that this model was built without."""
    root = key.partition(".")[0]
    return root.lower().startswith("aux") and root not in auxiliary_heads(model)


def _heads_of_other_size(model: nn.Module, weights: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    try:
        keys = [f"{head}.{name}" for head in heads(model) for name in ("weight", "bias")]
    except ValueError:  # it ends in something else, as LeNet-5 of 1998 does in its codes: all must agree
        return []
    return [key for key in keys if key in weights and key in own and weights[key].shape[1:] == own[key].shape[1:]
            and weights[key].shape != own[key].shape]  # fmt: skip


def _require_agreement(model: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Tries it on a copy without memory, with whatever the model does to keys before it loads them."""
    memory = {id(t): torch.empty_like(t, device="meta") for t in (*model.parameters(), *model.buffers())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that copying to the meta device does nothing
        trial = copy.deepcopy(model, memory)
        try:
            missing, unexpected = trial.load_state_dict(dict(weights), strict=False)
        except RuntimeError:  # shapes: torch names what is missing and unexpected beside them only if it is strict
            try:
                trial.load_state_dict(dict(weights))
            except RuntimeError as error:
                raise RuntimeError(f"{path}: {error}") from None
            raise
    if missing or unexpected:
        problems = [f"missing in it: {_names(missing)}"] * bool(missing)
        problems += [f"unexpected in it: {_names(unexpected)}"] * bool(unexpected)
        raise RuntimeError(f"{path}: is not of this {type(model).__name__}; {'; '.join(problems)}")


def _names(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
