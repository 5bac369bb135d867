"""Stand-in for the package of that name where it is not installed: draws examples, and neither shrinks nor keeps them.

The examples of a test follow from its name and seed. A failure is reported with what ``data.draw`` gave.
"""

from __future__ import annotations

import enum
import inspect
import random
from collections.abc import Callable, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import Any


class HealthCheck(enum.Enum):
    too_slow = 1


class Verbosity(enum.Enum):
    normal = 1
    verbose = 2


class settings:
    """Decorates a test: of all settings only the number of examples counts."""

    def __init__(self, *_: Any, max_examples: int = 100, **__: Any):
        self.max_examples = max_examples

    def __call__(self, test: Callable) -> Callable:
        test.examples = self.max_examples  # type: ignore[attr-defined]
        return test

    @staticmethod
    def register_profile(*_: Any, **__: Any) -> None: ...

    @staticmethod
    def load_profile(*_: Any, **__: Any) -> None: ...


def seed(value: int) -> Callable:
    def decorate(test: Callable) -> Callable:
        test.seed = value  # type: ignore[attr-defined]
        return test

    return decorate


Strategy = Callable[[random.Random], Any]


class _Data:
    """What ``st.data()`` draws."""

    def __init__(self, source: random.Random):
        self.source, self.drawn = source, []

    def draw(self, strategy: Strategy) -> Any:
        self.drawn.append(strategy(self.source))
        return self.drawn[-1]

    def __repr__(self) -> str:
        return f"data that drew {self.drawn}"


def _integers(low: int, high: int) -> Strategy:
    return lambda source: source.randint(low, high)


def _sampled_from(items: Sequence[Any]) -> Strategy:
    return lambda source: source.choice(list(items))


def _one_of(*strategies: Strategy) -> Strategy:
    return lambda source: source.choice(strategies)(source)


def _lists(strategy: Strategy, min_size: int = 0, max_size: int = 5) -> Strategy:
    return lambda source: [strategy(source) for _ in range(source.randint(min_size, max_size))]


strategies = SimpleNamespace(
    data=lambda: _Data, integers=_integers, sampled_from=_sampled_from, one_of=_one_of, lists=_lists,
    booleans=lambda: _sampled_from((False, True)),
)  # fmt: skip


def given(*drawn: Strategy) -> Callable:
    """Runs the test once for every example; the last parameters are drawn, the others pytest's."""

    def decorate(test: Callable) -> Callable:
        parameters = list(inspect.signature(test).parameters.values())
        kept, names = parameters[: -len(drawn)], [p.name for p in parameters[-len(drawn) :]]

        @wraps(test)
        def run(**given_by_pytest: Any) -> None:
            number = getattr(run, "seed", 0)
            for example in range(getattr(run, "examples", 100)):
                source = random.Random(f"{test.__qualname__}.{number}.{example}")
                values = {name: strategy(source) for name, strategy in zip(names, drawn, strict=True)}
                try:
                    test(**given_by_pytest, **values)
                except Exception as error:
                    raise AssertionError(f"example {example} of seed {number}: {values}") from error

        del run.__wrapped__  # pytest would look for fixtures of the names that are drawn
        run.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        return run

    return decorate
