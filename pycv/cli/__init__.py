"""``pycv …``: the commands. Each is one function; what they do lives in the package.

Bad input ends in one line that says what is wrong, and exit code 2; so does, with 1, a standard output that is full.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Sequence

from .shared import UsageError, user_input

USAGE = """usage: pycv COMMAND [OPTIONS]

  demo      train a LeNet on handwritten digits with pycv's kernels, and compare them with torch
  info      what was built and found on this machine, and what to do about what is missing
  kernels   the registered kernels; with a problem: which would run it, and why
  models    the architectures, with their parameters and multiply-accumulates
  summary   a model layer by layer: output size, activation memory, parameters, MACs, receptive field
  train     train a network by a recipe; go on with a run that was interrupted
  eval      evaluate trained networks, several as an ensemble
  predict   what trained networks see in picture files
  tune      measure this machine, a network or a set of problems for the choice among kernels; see what was tuned
  bench     measure kernels; without options: 20 ResNet and VGG layers against torch, in under two minutes

pycv COMMAND --help tells more; pycv --version the version."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an encoding without ± is no reason to end
    try:
        code = _command(*((sys.argv[1:] if arguments is None else arguments) or ["--help"]))
        print(end="", flush=True)  # here, where what fails is caught
        return code
    except UsageError as error:
        print(f"pycv: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pycv: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pycv kernels | head`
        _drop_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print(f"pycv: error: {os.strerror(errno.ENOSPC).lower()}", file=sys.stderr)
        return 1


def _command(name: str, *arguments: str) -> int:
    if name in ("-h", "--help"):
        print(USAGE)
        return 0
    if name == "--version":
        from .. import __version__

        print(__version__)
        return 0
    if name not in _COMMANDS:
        raise UsageError(f"there is no command {name!r}: expected one of {', '.join(_COMMANDS)}")
    return _COMMANDS[name](list(arguments))


def _drop_output() -> None:
    """What standard output did not take goes nowhere: Python would try, and fail, once more at the end."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _demo(arguments: list[str]) -> int:
    from .. import demo

    return demo.main(arguments) or 0


def _info(arguments: list[str]) -> int:
    argparse.ArgumentParser("pycv info", description="What was built and found on this machine.").parse_args(arguments)
    from ..info import info

    print(info())
    return 0


def _kernels(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv kernels", description="The registered kernels.")
    parser.add_argument("problem", nargs="*", help="which would run it, and why: conv2d.forward n8c64h56w56 k64r3s3 p1")
    parser.add_argument("--op", help="only the kernels of this op")
    parser.add_argument("--json", action="store_true", help="as JSON, one object per kernel")
    options = parser.parse_args(arguments)
    from ..listing import list_kernels

    with user_input():
        found = list_kernels(" ".join(options.problem) or None, op=options.op)
    print(json.dumps(found.rows(), indent=1) if options.json else found)
    return 0


# ------------------------------------------------------------------------------------------------------- models


def _models(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("pycv models", description="The architectures, with their default arguments.")
    parser.add_argument("pattern", nargs="?", default="*", help='only these: "resnet*"')
    parser.add_argument("--json", action="store_true", help="as JSON, one object per model")
    options = parser.parse_args(arguments)
    from ..models import catalogue

    found = catalogue.catalogue(options.pattern)
    if not found:
        raise UsageError(f"no model matches {options.pattern!r} (pycv models lists all)")
    print(json.dumps(found.rows(), indent=1) if options.json else found)
    return 0


def _summary(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "pycv summary",
        description="A model layer by layer: output size, values and megabytes (10^6 bytes) of activation memory, "
        "parameters, multiply-accumulates, and the side of the receptive field of one output.",
        epilog="Activations are counted once each: what works in place adds none (python: help(pycv.models.summary)).",
    )
    parser.add_argument("model", help="its name: vgg16 (pycv models lists all)")
    parser.add_argument("--size", type=int, help="height and width of the images; default: the model's own")
    parser.add_argument("--batch", type=int, default=1, help="images (default: 1)")
    parser.add_argument("--classes", type=int, help="outputs; default: the model's own")
    parser.add_argument("--json", action="store_true", help="as JSON, with every layer")
    options = parser.parse_args(arguments)
    import torch

    from .. import models

    with user_input():
        channels, *size = models.image_shape(options.model)
    if options.size is not None:
        size = [options.size, options.size]
    classes = {} if options.classes is None else {"num_classes": options.classes}
    if options.classes is not None and options.classes < 1:
        raise UsageError(f"--classes {options.classes}: expected at least 1")
    try:
        with torch.device("meta"):
            model = models.create(options.model, **classes)
        found = models.summary(model, (channels, *size), options.batch)
    except (TypeError, ValueError, RuntimeError) as error:  # the model's own objections to size and classes
        shape = "×".join(map(str, (channels, *size)))
        raise UsageError(f"{options.model} of images {shape}: {error}") from None
    print(json.dumps(found.to_json(), indent=1) if options.json else f"{options.model}\n{found}")
    return 0


def _train(arguments: list[str]) -> int:
    from .train import train

    return train(arguments)


def _eval(arguments: list[str]) -> int:
    from .train import evaluate

    return evaluate(arguments)


def _predict(arguments: list[str]) -> int:
    from .train import predict

    return predict(arguments)


def _tune(arguments: list[str]) -> int:
    from .tune import tune

    return tune(arguments)


def _bench(arguments: list[str]) -> int:
    from .bench import bench

    return bench(arguments)


_COMMANDS = {
    "demo": _demo,
    "info": _info,
    "kernels": _kernels,
    "models": _models,
    "summary": _summary,
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "tune": _tune,
    "bench": _bench,
}
