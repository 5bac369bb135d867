"""What to measure: problems with a name, read from text.

A problem set is a text file with one problem per line in the form of pycv/problem.py, optionally after ``NAME:``;
``#`` starts a comment. The sets that come with pycv lie in ``sets/`` beside this file, inside the package, so that they
are there wherever pycv is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import registry
from ..problem import ITEMSIZES, PASSES, ConvProblem, GemmProblem, PointwiseProblem, PoolProblem, Problem, parse

SETS = Path(__file__).parent / "sets"


@dataclass(frozen=True)
class Case:
    """One thing to measure: a problem and what to call it (its text where it has no name)."""

    name: str
    problem: Problem


def set_names() -> list[str]:
    """The names of the problem sets that come with pycv."""
    return sorted(path.stem for path in SETS.glob("*.txt"))


def description(name: str) -> str:
    """What a set that comes with pycv holds: the comment in its first line."""
    first = (SETS / f"{name}.txt").read_text().partition("\n")[0]
    return first.removeprefix("#").strip()


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
    name = ""
    if isinstance(item, str):
        name, _, text = item.rpartition(":")
        item = parse(text)
    problem = _complete(checked(item))
    return Case(name.strip() or str(problem), problem)


def _complete(problem: Problem) -> Problem:
    """A residual whose layout was not given lies as the tensor that it is added to."""
    if not isinstance(problem, (ConvProblem, GemmProblem)) or "residual" not in problem.epilogue or problem.residual:
        return problem
    if isinstance(problem, GemmProblem):
        return replace(problem, residual=problem.out)
    return replace(problem, residual=problem.output if problem.pass_ == "forward" else problem.input)


def checked(problem: Problem) -> Problem:
    """The problem, if its op exists and its sizes make sense; ValueError naming what does not.

    Text can say anything; a plan trusts its problem.
    """
    text = f"problem '{problem}'"
    registered = [name.partition(".") for name in registry.algorithms()]
    if problem.op not in (ops := list(dict.fromkeys(op for op, _, _ in registered))):
        raise ValueError(f"{text}: there is no op {problem.op}; there are {', '.join(ops)}")
    if problem.pass_ not in (passes := [pass_ for op, _, pass_ in registered if op == problem.op]):
        raise ValueError(f"{text}: {problem.op} has no pass {problem.pass_}, only {', '.join(passes)}")
    if isinstance(problem, (ConvProblem, PoolProblem)):
        if len(problem.size) != int(problem.op[-2]):
            raise ValueError(f"{text}: {problem.op} needs {problem.op[-2]} spatial sizes, not {len(problem.size)}")
        for name in ("size", "filter", "output_size", "stride", "dilation"):
            if min(getattr(problem, name), default=1) < 1:
                sizes = "x".join(map(str, getattr(problem, name)))
                raise ValueError(f"{text}: {name.replace('_', ' ')} {sizes} must be 1 or more")
    if isinstance(problem, ConvProblem):
        groups = problem.groups
        if groups < 1 or problem.c % groups or problem.k % groups:
            raise ValueError(f"{text}: {problem.c} and {problem.k} channels do not divide into {groups} groups")
    return problem


DTYPE_NAMES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}  # torch's


def variants(
    cases: Iterable[Case],
    passes: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    batches: Sequence[int] = (),
    device: str = "",
) -> list[Case]:
    """Each case in each of these passes, dtypes (f32 or torch's float32) and batch sizes; none given: as it is.
    ``device``: cpu or cuda, where all of them run; empty: as each says.

    Where there are several, names tell them apart. Passes that its op lacks are left out; products and pointwise
    functions have no batch size to change. The epilogue belongs to the forward pass and is dropped from the others.
    Raises ValueError for unknown names.
    """
    dtypes = [DTYPE_NAMES.get(name, name) for name in dtypes]
    devices = [device] if device else []
    for what, given, known in (
        ("pass", passes, PASSES), ("dtype", dtypes, tuple(ITEMSIZES)), ("device", devices, ("cpu", "cuda")),
    ):  # fmt: skip
        for name in given:
            if name not in known:
                raise ValueError(f"{what} {name!r}: expected one of {', '.join(known)}")
    known_passes = registry.algorithms()
    result = []
    for one in cases:
        has_batch = not isinstance(one.problem, (GemmProblem, PointwiseProblem))
        for each in (_of_batch(one, batch) for batch in batches) if batches and has_batch else [one]:
            result += _of_case(_on(each, device) if device else each, passes, dtypes, known_passes)
    return result


def _of_batch(one: Case, batch: int) -> Case:
    changed = replace(one.problem, n=batch)  # type: ignore[arg-type]
    name = f"{one.name} b{batch}" if one.name != str(one.problem) else str(changed)
    return Case(name, changed)


def _on(one: Case, device: str) -> Case:
    changed = replace(one.problem, device=device)
    return Case(one.name if one.name != str(one.problem) else str(changed), changed)


def _of_case(one: Case, passes: Sequence[str], dtypes: Sequence[str], known: Mapping[str, object]) -> list[Case]:
    result = []
    for pass_ in passes or [one.problem.pass_]:
        for dtype in dtypes or [one.problem.dtype]:
            if f"{one.problem.op}.{pass_}" in known:
                changed = replace(_in_pass(one.problem, pass_), dtype=dtype)
                told = [pass_] * (len(passes) > 1) + [dtype] * (len(dtypes) > 1)
                named = one.name != str(one.problem)
                result.append(Case(" ".join([one.name, *told]) if named else str(changed), changed))
    return result


def _in_pass(problem: Problem, pass_: str) -> Problem:
    if pass_ == problem.pass_ or isinstance(problem, GemmProblem):
        return problem
    if isinstance(problem, ConvProblem):
        return replace(problem, pass_=pass_, epilogue=(), residual=None)
    return replace(problem, pass_=pass_)
