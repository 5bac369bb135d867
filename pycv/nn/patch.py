"""``pycv.patch(model)``: a model's torch.nn layers onto pycv's kernels, in place and undoable.

Only ``__class__`` of modules whose type is exactly a torch.nn class changes, so that identity, parameters, hooks, tied
weights and references held elsewhere survive. Whatever is more than its torch.nn class (parametrised, quantised,
subclassed, scripted, forward replaced) is left as it is and listed with the reason.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils import parametrize

from . import activation, conv, linear, normalization, pooling
from .enable import HANDLERS, enable
from .prepared import WeightedLayer
from .tracing import scriptable

TWINS: dict[type, type] = {
    getattr(torch.nn, name): layer
    for family in (activation, conv, linear, normalization, pooling)
    for name, layer in vars(family).items()
    if isinstance(layer, type) and layer.__module__ == family.__name__ and not name.startswith("_")
}
"""The pycv layer of each torch.nn class."""

_OURS = frozenset(TWINS.values())
_WORKLESS = (torch.nn.Identity, torch.nn.Flatten, torch.nn.Unflatten)  # views: there is nothing to run
_REPLACED = "its forward was replaced on the instance"


def patch(model: torch.nn.Module, *, functional: bool = False) -> Patch:
    """Put a model's layers onto pycv's kernels, in place.

    Parameters
    ----------
    model : any module. Every submodule whose type is exactly one of the torch.nn classes that :mod:`pycv.nn` has is
        given pycv's class; parameters, buffers, hooks and references stay the objects they were.
    functional : also run the model's ``forward`` inside :func:`pycv.enable`, so that calls like ``F.relu`` reach pycv.
        Holds for calls of this model as a whole, not for its submodules called on their own.

    Returns
    -------
    Patch
        What was swapped, what was left and why, which functional calls stay on torch; ``undo()`` takes it back.

    Notes
    -----
    torch.ao.quantization knows torch.nn's classes alone and passes over swapped layers without a word: quantise first,
    patch what is left. TorchScript runs torch's kernels, and leaves a scripted model on them: script a copy.

    Raises
    ------
    TypeError
        If ``model`` is not a torch.nn.Module.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model={type(model).__name__!r}: expected a torch.nn.Module")
    handle = Patch(type(model).__name__)
    if functional:
        _swap_forward(model, handle)
    for name, module in model.named_modules():
        if ".parametrizations" in f".{name}":
            continue
        reason = _why_left(module)
        if type(module) in TWINS and reason is None:
            handle._swap(name, module, TWINS[type(module)])
        elif reason is not None:
            handle.left.setdefault(name, reason)
        kind: Any = type(module)
        if not isinstance(model, _BeneathEnable) and kind not in _OURS:
            handle.functional.update({(name, call): n for call, n in _functional_calls(kind).items()})
    return handle


@dataclass(eq=False)
class Patch:
    """What :func:`patch` did.

    Attributes
    ----------
    swapped : names of the modules now of a pycv class.
    left : names of the layers that stay on torch, with the reason. Containers, and layers that only make a view of
        their input, are not listed.
    functional : (module name, function) of calls in ``forward`` that have a pycv kernel but stay on torch, with how
        often they stand in the source. Empty where the model's forward runs inside ``enable()``.
    """

    model: str
    swapped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    functional: Counter[tuple[str, str]] = field(default_factory=Counter)
    _undo: list[tuple[str, torch.nn.Module, type, type]] = field(default_factory=list, init=False)

    def _swap(self, name: str, module: torch.nn.Module, after: type) -> None:
        self._undo.append((name, module, type(module), after))
        module.__class__ = after
        if after in _OURS:
            self.swapped.append(name)

    def undo(self) -> None:
        """Give every module its class back. Warns of those whose class something else changed since; twice is once."""
        changed = []
        for name, module, before, after in reversed(self._undo):
            if type(module) is not after:
                changed.append(name or "(model)")
                continue
            if isinstance(module, WeightedLayer):
                module._drop_prepared_weights()
            module.__class__ = before
        self._undo.clear()
        if changed:
            names = ", ".join(changed)
            warnings.warn(f"left as they are, their class was changed after the patch: {names}", stacklevel=2)

    def __repr__(self) -> str:
        lines = [f"Patch of {self.model}: {len(self.swapped)} layers swapped, {len(self.left)} left on torch"]
        if any(issubclass(after, _BeneathEnable) for *_, after in self._undo):
            lines.append("  functional calls: forward runs inside pycv.enable()")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name or "(model)")
        lines += [f"  left: {_names(names)}: {reason}" for reason, names in reasons.items()]
        calls: dict[str, list[str]] = {}
        for name, call in self.functional:
            calls.setdefault(call, []).append(name or "(model)")
        lines += [f"  stays on torch: {call} in {_names(names)}" for call, names in calls.items()]
        if calls:
            lines.append("  patch(model, functional=True) or pycv.enable() reaches these calls")
        return "\n".join(lines)


def _names(names: list[str], shown: int = 4) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def _why_left(module: torch.nn.Module) -> str | None:
    """Why a layer is not swapped; None for those to swap, those already of a pycv class, and containers."""
    kind = type(module)
    if kind in _OURS or issubclass(kind, _BeneathEnable):
        return None
    twin = next((torch_class for torch_class in TWINS if isinstance(module, torch_class)), None)
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript"
    if kind.__module__.startswith("torch.ao.") or getattr(module, "qconfig", None) is not None:
        return "quantised or prepared for it" if twin or kind.__module__.startswith("torch.ao.") else None
    if twin is not None:
        if parametrize.is_parametrized(module):
            return "parametrised"
        if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
            return "lazy: has no weights before its first call"
        if kind is not twin:
            return f"subclass of torch.nn.{twin.__name__}"
        return _REPLACED if "forward" in module.__dict__ else None
    is_layer = next(module.children(), None) is None and kind.forward is not torch.nn.Module.forward
    if is_layer and not isinstance(module, _WORKLESS):
        return f"pycv has no layer for {kind.__name__}"
    return None


# --------------------------------------------------------------------------------- forward beneath enable()


class _BeneathEnable:
    """Marks the classes that :func:`_beneath_enable` makes."""


@functools.lru_cache(maxsize=64)
def _beneath_enable(base: Any) -> type[torch.nn.Module]:
    """A subclass of ``base`` whose forward runs inside ``enable()``, and whose instances pickle and copy as such."""

    @functools.wraps(base.forward)
    def forward(self, *args, **kwargs):
        if torch.compiler.is_compiling():
            return base.forward(self, *args, **kwargs)
        with enable():
            return base.forward(self, *args, **kwargs)

    def __reduce_ex__(self, protocol):
        _, _, *state = base.__reduce_ex__(self, max(protocol, 2))
        return (_blank_beneath_enable, (base,), *state)

    def __prepare_scriptable__(self):
        return scriptable(self, base)

    methods = {"forward": forward, "__reduce_ex__": __reduce_ex__, "__prepare_scriptable__": __prepare_scriptable__}
    same = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(base.__name__, (base, _BeneathEnable), {**methods, **same})


def _blank_beneath_enable(base: Any) -> torch.nn.Module:
    kind = _beneath_enable(base)
    return kind.__new__(kind)


def _swap_forward(model: torch.nn.Module, handle: Patch) -> None:
    """Put the model's forward beneath ``enable()``, or the reason why not into the handle."""
    if isinstance(model, _BeneathEnable) or type(model) in TWINS or type(model) in _OURS:
        return
    if isinstance(model, torch.jit.ScriptModule):
        handle.left[""] = "TorchScript"
    elif "forward" in model.__dict__:
        handle.left[""] = _REPLACED
    elif isinstance(inspect.getattr_static(type(model), "forward"), staticmethod | classmethod):
        handle.left[""] = "its forward is a static or class method"
    else:
        kind: Any = type(model)
        try:
            beneath = _beneath_enable(kind)
        except TypeError as error:  # an __init_subclass__ or metaclass that wants more
            handle.left[""] = f"its class has no subclasses without more: {error}"
        else:
            handle._swap("", model, beneath)


# ------------------------------------------------------------------------------------- functional calls

_METHODS = ("relu", "relu_", "mm", "bmm", "matmul", "addmm")


@functools.lru_cache(maxsize=1024)
def _functional_calls(kind: Any) -> Counter[str]:
    """The calls in ``kind.forward``, and in the methods and plain functions it calls, that ``enable()`` would reach.

    Read off the source: what is called through a variable, an attribute or a library's code is not found.
    """
    found: Counter[str] = Counter()
    pending: list[Any] = [inspect.getattr_static(kind, "forward")]
    seen = set()
    while pending:
        function = pending.pop()
        function = inspect.unwrap(function) if isinstance(function, types.FunctionType) else None
        if function in seen or not isinstance(function, types.FunctionType):
            continue
        seen.add(function)
        for node in _expressions(function):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
                found["@"] += 1
            if not isinstance(node, ast.Call):
                continue
            called = _resolve(node.func, function, kind)
            if isinstance(called, Hashable) and called in HANDLERS:
                found[ast.unparse(node.func)] += 1
            elif called is not None:
                if _followed(called):
                    pending.append(called)
            elif (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in _METHODS
                and not _is_self(node.func.value, function, kind)  # self.relu(x) calls a submodule
            ):
                found[f".{node.func.attr}"] += 1
    return found


def _followed(called: Any) -> bool:
    """Functions of the model's own code; torch's own calls are not scanned."""
    return isinstance(called, types.FunctionType) and called.__module__.split(".")[0] not in ("torch", "pycv")


def _expressions(function: types.FunctionType) -> Iterator[ast.AST]:
    try:
        return ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError):  # no source: built interactively or generated
        return iter(())


def _resolve(node: ast.expr, function: types.FunctionType, kind: type) -> Any:
    """The function that an expression like ``F.relu``, ``helper`` or ``self.method`` names, or None."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    if isinstance(node.value, ast.Name) and node.value.id in function.__code__.co_varnames[:1]:
        value = inspect.getattr_static(kind, node.attr, None)
        return value if isinstance(value, types.FunctionType) else None
    owner = _module(node.value, function)
    return getattr(owner, node.attr, None) if owner is not None else None


def _is_self(node: ast.expr, function: types.FunctionType, kind: type) -> bool:
    """Whether this names the module, in one of its methods."""
    is_method = any(function in vars(base).values() for base in kind.__mro__)
    return is_method and isinstance(node, ast.Name) and node.id in function.__code__.co_varnames[:1]


def _module(node: ast.expr, function: types.FunctionType) -> types.ModuleType | None:
    """The module that ``F`` or ``torch.nn.functional`` names in a function's source."""
    if isinstance(node, ast.Name):
        value = function.__globals__.get(node.id)
    elif isinstance(node, ast.Attribute):
        owner = _module(node.value, function)
        value = getattr(owner, node.attr, None) if owner is not None else None
    else:
        return None
    return value if isinstance(value, types.ModuleType) else None
