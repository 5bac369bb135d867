"""Two recordings side by side."""

import pytest

from pycv.bench.compare import compare

MACHINE = {"cpu": "a", "cores": 2, "isa": "avx2", "torch": "2"}


def row(name, seconds, low=None, high=None, contender="pycv"):
    interval = {"low": low or seconds, "high": high or seconds}
    return {
        "name": name,
        "problem": "relu.forward e1",
        "contender": contender,
        "threads": 2,
        "seconds": seconds,
    } | interval


def recording(*rows, **changes):
    return {"machine": MACHINE | changes, "rows": rows}


def verdicts(before, after, tolerance=0.05):
    return [change.verdict for change in compare(recording(before), recording(after), tolerance).changes]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((1.0, 0.9, 1.1), (1.2, 1.05, 1.3), "no difference"),
        ((1.0, 0.9, 1.1), (1.2, 1.11, 1.3), "regression"),
        ((1.0, 0.99, 1.01), (1.04, 1.03, 1.05), "slower"),
        ((1.0, 0.99, 1.01), (1.05, 1.04, 1.06), "slower"),
        ((1.0, 0.99, 1.01), (1.0501, 1.04, 1.06), "regression"),
        ((1.0, 0.9, 1.1), (0.8, 0.7, 0.89), "faster"),
        ((1.0,), (None,), "lost"),
        ((None,), (1.0,), "new"),
        ((None,), (None,), "not measured"),
    ],
)
def test_intervals_and_tolerance_decide(before, after, verdict):
    assert verdicts(row("a", *before), row("a", *after)) == [verdict]


def test_only_regressions_and_lost_rows_fail():
    def failed(before, after):
        return compare(recording(*before), recording(*after), 0.05).failed

    assert not failed([row("a", 1.0)], [row("a", 1.04)])
    assert not failed([row("a", 1.0)], [row("a", 0.5), row("b", 1.0)])
    assert not failed([row("a", 1.0), row("b", None)], [row("a", 1.0)])
    assert failed([row("a", 1.0)], [row("a", 1.06)])
    assert failed([row("a", 1.0)], [row("a", None)])
    assert failed([row("a", 1.0), row("b", 1.0)], [row("a", 1.0)])


def test_missing_rows_and_another_machine_are_named():
    found = compare(recording(row("a", 1.0), row("b", 1.0)), recording(row("b", 2.0), row("c", 1.0), cpu="z"))
    text = str(found)
    assert "missing in the second: a: relu.forward e1, pycv, 2 threads" in text
    assert "only in the second: c: relu.forward e1, pycv, 2 threads" in text
    assert "not of one machine: cpu a and z" in text
    assert "1 regression; slower by more than 0 % is a regression" in text and "+100.0 %" in text


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two rows of a: relu"):
        compare(recording(row("a", 1.0), row("a", 1.0)), recording())
    with pytest.raises(ValueError, match="tolerance -1"):
        compare(recording(), recording(), -1)
