"""Recipes: all that decides a training run, as a TOML file, and `--set KEY=VALUE` on top of it.

A recipe is a dataclass of dataclasses, one for each table of the file. Types, defaults and bounds stand at the fields
and nowhere else: reading, overriding, checking and writing go through them. Every objection names key and value.
"""

from __future__ import annotations

import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).with_name("recipes")
Section = TypeVar("Section")


def setting(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """A field with bounds, which :func:`_check_bounds` holds."""
    bounds = {"least": least, "above": above, "most": most, "below": below, "choices": choices}
    return field(default=default, metadata={name: bound for name, bound in bounds.items() if bound is not None})


@dataclass(frozen=True)
class Data:
    """Which pictures, and how they are parted into training, validation and test."""

    name: str = "digits"  # as in pycv.data.create
    path: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of that dataset: size, mode, on_corrupt ...
    train: str | None = None  # the dataset's own split to train on; None: its first
    validation: str | None = None  # the dataset's own split; None: a share is cut from the training data
    test: str | None = None
    validation_share: float = setting(0.1, least=0, below=1)
    test_share: float = setting(0.0, least=0, below=1)  # cut from the training data where `test` names no split
    folds: int = setting(0, least=0)  # of cross-validation; the test data are then those of one fold
    fold: int = setting(0, least=0)
    seed: int | None = setting(None, least=0)  # of what is cut; None: the run's
    workers: int = setting(0, least=0)
    on_corrupt: str = setting("refuse", choices=("refuse", "skip"))


@dataclass(frozen=True)
class Augment:
    """What is done to pictures: `preset` names the usual steps for training and for evaluation (inputs.py)."""

    preset: str = setting("digits", choices=("digits", "cifar", "imagenet", "alexnet", "plain"))
    normalise: str = setting("digits", choices=("digits", "mnist", "cifar10", "cifar100", "imagenet"))
    size: int = setting(32, least=1)  # height and width that the network sees
    rotation: float = setting(0.0, least=0)  # degrees, either way
    # Brightness, contrast and saturation vary by this part, hue by a quarter of it of the colour circle.
    jitter: float = setting(0.0, least=0, most=1)
    randaugment: int = setting(0, least=0)  # operations per picture
    magnitude: float = setting(9.0, least=0, most=10)
    erasing: float = setting(0.0, least=0, most=1)  # probability
    mixup: float = setting(0.0, least=0)  # alpha; with cutmix too, each pair draws one of the two
    cutmix: float = setting(0.0, least=0)


@dataclass(frozen=True)
class Model:
    """The network; the number of classes is that of the data unless `arguments` says otherwise."""

    name: str = "lenet5"  # as in pycv.models.create
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None  # a file, or "imagenet" for published weights
    freeze: str | None = None  # "head": train only the last layers; the name of a layer: freeze what is before it


@dataclass(frozen=True)
class Loss:
    name: str = setting("cross_entropy", choices=("cross_entropy", "squared_error"))
    label_smoothing: float = setting(0.0, least=0, below=1)
    auxiliary: float = setting(0.3, least=0)  # weight of each auxiliary head (GoogLeNet, Inception)


@dataclass(frozen=True)
class Optim:
    name: str = setting("sgd", choices=("sgd", "adagrad", "rmsprop", "adam", "adamw"))
    lr: float = setting(0.1, above=0)
    momentum: float = setting(0.9, least=0, below=1)  # of sgd and rmsprop
    nesterov: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)  # of adam and adamw
    smoothing: float = setting(0.99, least=0, below=1)  # of rmsprop
    epsilon: float = setting(1e-8, above=0)
    weight_decay: float = setting(0.0, least=0)
    decay_all: bool = True  # false: no decay on biases and on the parameters of normalisation
    l1: float = setting(0.0, least=0)  # weight of the sum of absolute values of what is decayed
    layer_decay: float = setting(1.0, above=0, most=1)  # factor of the rate from each layer to the one before it


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes. Lengths are in epochs."""

    name: str = setting("constant", choices=("constant", "step", "plateau", "cosine", "one_cycle"))
    warm_up: float = setting(0.0, least=0)
    milestones: tuple[int, ...] = ()  # of step: the rate is multiplied by `factor` at the end of these epochs
    factor: float = setting(0.1, above=0, below=1)
    patience: int = setting(10, least=0)  # of plateau: epochs without a lower validation loss that are put up with
    floor: float = setting(0.0, least=0, most=1)  # of cosine and one_cycle: the last share of the rate
    rise: float = setting(0.3, above=0, below=1)  # of one_cycle: the share of all steps in which the rate rises
    # Of one_cycle: momentum (or the first of betas) at the highest and at the lowest rate; []: as in optim, always.
    momentum: tuple[float, ...] = (0.85, 0.95)


@dataclass(frozen=True)
class Loop:
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    threads: int | None = setting(None, least=1)
    accumulate: int = setting(1, least=1)  # parts into which a batch is cut to need less memory
    clip_norm: float | None = setting(None, above=0)
    max_norm: float | None = setting(None, above=0)  # a larger norm of the gradient ends the run
    ema: float = setting(0.0, least=0, below=1)  # decay per step of the moving average of the weights; 0: none
    amp: str = setting("none", choices=("none", "bf16", "fp16"))
    channels_last: bool = False
    compile: bool = False
    sync_batchnorm: bool = False
    patience: int | None = setting(None, least=0)  # early stopping: epochs without gain that are put up with
    max_steps: int | None = setting(None, least=1)
    log_every: int = setting(50, least=1)  # steps per line of metrics.jsonl
    checkpoint_every: int | None = setting(None, least=1)  # steps; at the end of every epoch anyway
    keep_last: int = setting(2, least=1)
    evaluation_batch: int = setting(256, least=1)


@dataclass(frozen=True)
class Kernels:
    """pycv.use for the whole run. ``algorithm`` is a name, or ``conv2d.forward=NAME,conv2d.grad_weight=NAME``."""

    backend: str | None = None
    algorithm: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Recipe:
    name: str = "recipe"
    seed: int = setting(0, least=0, below=2**32)
    epochs: int = setting(1, least=1)
    batch_size: int = setting(64, least=1)  # of all processes together
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    loop: Loop = field(default_factory=Loop)
    kernels: Kernels = field(default_factory=Kernels)


def names() -> list[str]:
    """The recipes that come with pycv."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load(name: str | Path) -> Recipe:
    """A recipe that comes with pycv, by name, or one in a file.

    Raises
    ------
    ValueError
        If there is no such recipe, or the file is none; the message names key and value.
    OSError
        If the file cannot be read.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = SHIPPED / f"{name}.toml"
        if not path.is_file():
            near = difflib.get_close_matches(str(name), names()) or names()
            raise ValueError(f"recipe={str(name)!r}: no such recipe; did you mean {' or '.join(near)}?")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(text: str) -> Recipe:
    """The recipe that a TOML text says; ValueError as :func:`load`."""
    return _built(Recipe, tomllib.loads(text), "")


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with ``KEY=VALUE`` texts applied in turn: ``optim.lr=0.02``, ``model.arguments.in_channels=1``.

    A value is read as the type of its field: ``none`` where that may be nothing, numbers apart by commas for several.

    Raises
    ------
    ValueError
        If there is no such key, or the value is not of its type or out of its bounds.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: expected KEY=VALUE")
        recipe = _assigned(recipe, key.strip().split("."), text.strip(), key.strip())
    return recipe


def flat(recipe: Recipe) -> dict[str, Any]:
    """Every key as ``--set`` names it, with its value."""
    found: dict[str, Any] = {}
    for name, value in vars(recipe).items():
        found |= {f"{name}.{key}": item for key, item in vars(value).items()} if is_dataclass(value) else {name: value}
    return found


def dump(recipe: Recipe) -> str:
    """The recipe as TOML, every field of it; what is None is left out. :func:`parse` reads it back."""
    lines = [f"{name} = {_written(value)}" for name, value in _shown(recipe) if not is_dataclass(value)]
    for name, section in _shown(recipe):
        if is_dataclass(section):
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {_written(value)}" for key, value in _shown(section)]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------- reading


def _built(section: type[Section], values: Mapping[str, Any], prefix: str) -> Section:
    """A dataclass from a table; ``prefix`` is what its keys begin with in messages."""
    kinds = typing.get_type_hints(section)
    known = {f.name: f for f in fields(section)}  # type: ignore[arg-type]
    for key in values:
        _require_known(key, known, prefix)
    arguments = {}
    for key, value in values.items():
        if is_dataclass(kinds[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{key}={value!r}: expected a table")
            arguments[key] = _built(kinds[key], value, f"{prefix}{key}.")
        else:
            arguments[key] = _typed(value, kinds[key], f"{prefix}{key}")
            _check_bounds(arguments[key], known[key], f"{prefix}{key}")
    return section(**arguments)


def _require_known(key: str, known: Mapping[str, Any], prefix: str) -> None:
    if key not in known:
        near = _meant(key) or [prefix + name for name in difflib.get_close_matches(key, known) or sorted(known)]
        raise ValueError(f"{prefix}{key}: no such key; did you mean {' or '.join(near)}?")


def _meant(key: str) -> list[str]:
    """The keys of any table that are called so, or whose name is short for it or the long form of it."""
    return [name for name in flat(Recipe()) if {key, _short(key)} & {last := name.rpartition(".")[2], _short(last)}]


def _short(name: str) -> str:
    """``lr`` of ``learning_rate``; one word is its own."""
    return "".join(word[:1] for word in name.split("_")) if "_" in name else name


def _typed(value: Any, kind: Any, key: str) -> Any:
    """The value as its field's type wants it: whole numbers are good for float, lists for tuples."""
    options = _without_none(kind)
    if value is None and options is not kind:
        return None
    if options is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    origin = typing.get_origin(options) or options
    if origin is tuple and isinstance(value, list | tuple):
        element = typing.get_args(options)[0]
        return tuple(_typed(item, element, key) for item in value)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        raise ValueError(f"{key}={value!r}: expected {_described(options)}")
    return dict(value) if origin is dict else value


def _check_bounds(value: Any, declared: Field, key: str) -> None:
    bounds = declared.metadata
    if value is None:
        return
    if "choices" in bounds and value not in bounds["choices"]:
        raise ValueError(f"{key}={value!r}: expected one of {', '.join(bounds['choices'])}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}={value!r}: expected a finite number")
    fits = {
        "least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    numbers = {name: bound for name, bound in bounds.items() if name in fits}
    if not all(fits[name](bound) for name, bound in numbers.items()):
        wanted = " and ".join(f"{words[name]} {bound:g}" for name, bound in numbers.items())
        raise ValueError(f"{key}={value!r}: expected a number {wanted}")


def _without_none(kind: Any) -> Any:
    """``int`` of ``int | None``; the kind itself otherwise."""
    if isinstance(kind, types.UnionType):
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return kind


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a list of {_described(typing.get_args(kind)[0])}s"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return plain.get(kind, "a table")


# ---------------------------------------------------------------------------------------------- overriding


def _assigned(section: Any, path: list[str], text: str, key: str) -> Any:
    """The dataclass with one value, at ``path`` in it, replaced."""
    name, *rest = path
    known = {f.name: f for f in fields(section)}
    prefix = key[: len(key) - len(".".join(path))]
    _require_known(name, known, prefix)
    value = getattr(section, name)
    if is_dataclass(value):
        if not rest:
            raise ValueError(f"{key}={text}: {key} is a table; name one of its keys")
        return replace(section, **{name: _assigned(value, rest, text, key)})
    if isinstance(value, dict):
        if not rest and isinstance(whole := _guessed(text), dict):
            return replace(section, **{name: whole})
        if len(rest) != 1:
            raise ValueError(f"{key}={text}: expected {prefix}{name}.KEY=VALUE, or {{}} for none")
        return replace(section, **{name: {**value, rest[0]: _guessed(text)}})
    if rest:
        raise ValueError(f"{key}: no such key; {prefix}{name} is no table")
    kind = typing.get_type_hints(type(section))[name]
    read = _typed(_read_as(text, kind, key), kind, key)
    _check_bounds(read, known[name], key)
    return replace(section, **{name: read})


def _read_as(text: str, kind: Any, key: str) -> Any:
    """A text as a value of this type; where it is none the text itself, to which :func:`_typed` objects."""
    plain = _without_none(kind)
    if plain is not kind and text.lower() in ("none", ""):
        return None
    if typing.get_origin(plain) is tuple:
        element = typing.get_args(plain)[0]
        return tuple(_read_as(item.strip(), element, key) for item in text.strip("[]").split(",") if item.strip())
    if plain is str:
        return text
    if plain is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return plain(text)
    except ValueError:
        return text


def _guessed(text: str) -> Any:
    """A value of a free table: as TOML reads it, else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


# ------------------------------------------------------------------------------------------------- writing


def _shown(section: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(section, f.name)) for f in fields(section) if getattr(section, f.name) is not None]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_quoted(key)} = {_written(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped) + '"'
