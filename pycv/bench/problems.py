"""What to measure: problems with a name, read from text.

A problem set is a text file with one problem per line in the form of pycv/problem.py, optionally after ``NAME:``;
``#`` starts a comment. The sets that come with pycv lie in ``sets/`` beside this file, inside the package, so that they
are there wherever pycv is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import registry
from ..problem import ITEMSIZES, PASSES, ConvProblem, GemmProblem, PoolProblem, Problem, parse

SETS = Path(__file__).parent / "sets"


@dataclass(frozen=True)
class Case:
    """One thing to measure: a problem and what to call it (its text where it has no name)."""

    name: str
    problem: Problem


def set_names() -> list[str]:
    """The names of the problem sets that come with pycv."""
    return sorted(path.stem for path in SETS.glob("*.txt"))


def load(name: str | Path) -> list[Case]:
    """The cases of a problem set: a name out of :func:`set_names`, or the path of a file.

    Raises ValueError, naming file and line, for a set that does not exist or a line that is no problem.
    """
    path = SETS / f"{name}.txt" if str(name) in set_names() else Path(name)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(set_names())
        raise ValueError(f"problem set {str(name)!r}: neither one of {known} nor a readable file ({error})") from None
    found = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            try:
                found.append(case(text))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from None
    return found


def case(item: str | Problem | Case) -> Case:
    """A problem, its text, or ``NAME: TEXT`` as a case. Raises ValueError if no kernel could ever run it."""
    if isinstance(item, Case):
        return item
    if not isinstance(item, str):
        return Case(str(item), checked(item))
    name, colon, text = item.partition(":")
    if not colon:
        name, text = "", item
    problem = checked(parse(text))
    return Case(name.strip() or str(problem), problem)


def checked(problem: Problem) -> Problem:
    """The problem, if its op exists and its sizes make sense; ValueError naming what does not.

    Text can say anything; a plan trusts its problem.
    """
    known = registry.algorithms()
    if f"{problem.op}.{problem.pass_}" not in known:
        raise ValueError(f"problem '{problem}': there is no {problem.op}.{problem.pass_}; there are {', '.join(known)}")
    if isinstance(problem, (ConvProblem, PoolProblem)):
        for name in ("size", "filter", "output_size", "stride", "dilation"):
            if min(getattr(problem, name), default=1) < 1:
                sizes = "x".join(map(str, getattr(problem, name)))
                raise ValueError(f"problem '{problem}': {name.replace('_', ' ')} {sizes} must be 1 or more")
    if hasattr(problem, "size") and f"{len(problem.size)}d" != problem.op[-2:] and problem.op[-1] == "d":
        raise ValueError(f"problem '{problem}': {problem.op} needs {problem.op[-2]} spatial sizes")
    if isinstance(problem, ConvProblem) and (problem.groups < 1 or problem.c % problem.groups or problem.k % problem.groups):
        raise ValueError(
            f"problem '{problem}': {problem.c} input and {problem.k} output channels must be multiples of "
            f"{problem.groups} groups"
        )
    return problem


def variants(cases: Iterable[Case], passes: Sequence[str] = (), dtypes: Sequence[str] = ()) -> list[Case]:
    """Each case in each of these passes and dtypes (none given: as it is); passes that its op lacks are left out.

    The epilogue belongs to the forward pass and is dropped from the others. Raises ValueError for unknown names.
    """
    for given, known in ((passes, PASSES), (dtypes, tuple(ITEMSIZES))):
        for name in given:
            if name not in known:
                raise ValueError(f"{name!r}: expected one of {', '.join(known)}")
    known_passes = registry.algorithms()
    result = []
    for one in cases:
        for pass_ in passes or [one.problem.pass_]:
            for dtype in dtypes or [one.problem.dtype]:
                if f"{one.problem.op}.{pass_}" in known_passes:
                    changed = replace(_in_pass(one.problem, pass_), dtype=dtype)
                    named = one.name != str(one.problem)
                    result.append(Case(one.name if named else str(changed), changed))
    return result


def _in_pass(problem: Problem, pass_: str) -> Problem:
    if pass_ == problem.pass_ or isinstance(problem, GemmProblem):
        return problem
    if isinstance(problem, ConvProblem):
        return replace(problem, pass_=pass_, epilogue=(), residual=None)
    return replace(problem, pass_=pass_)
