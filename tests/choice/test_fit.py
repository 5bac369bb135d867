"""Constants out of times: exact where the times are, never negative, guessed where nothing was measured."""

import random

import numpy as np
import pytest

from pycv.choice.fit import fit, fit_related, nnls

GUESS = {"a": 1e-9, "b": 1e-9, "calls": 1e-6}


def samples(constants, count=20, noise=0.0):
    draw = random.Random(3)
    for _ in range(count):
        counts = {"a": 10 ** draw.uniform(2, 7), "b": 10 ** draw.uniform(2, 6), "calls": 1.0}
        seconds = sum(constants[name] * value for name, value in counts.items())
        yield counts, seconds * (1 + noise * draw.uniform(-1, 1))


def test_nnls_agrees_with_a_search_over_all_active_sets():
    random_numbers = np.random.default_rng(1)
    for _ in range(50):
        a, b = random_numbers.normal(size=(8, 4)), random_numbers.normal(size=8)
        best = min(
            float(np.linalg.norm(a @ candidate - b))
            for candidate in (_solved(a, b, [i for i in range(4) if mask >> i & 1]) for mask in range(16))
            if (candidate >= 0).all()
        )
        x = nnls(a, b)
        assert (x >= 0).all()
        assert np.linalg.norm(a @ x - b) == pytest.approx(best, rel=1e-9)


def _solved(a, b, columns):
    x = np.zeros(a.shape[1])
    if columns:
        x[columns] = np.linalg.lstsq(a[:, columns], b, rcond=None)[0]
    return x


def test_exact_times_give_their_constants():
    constants = {"a": 3e-10, "b": 5e-9, "calls": 4e-6}
    found = fit(list(samples(constants)), GUESS)
    assert found.constants == pytest.approx(constants, rel=0.1)
    assert found.median_error < 0.02


def test_an_outlier_does_not_carry_the_others_away():
    constants = {"a": 3e-10, "b": 5e-9, "calls": 4e-6}
    taken = list(samples(constants, noise=0.03))
    taken[4] = (taken[4][0], 20 * taken[4][1])
    found = fit(taken, GUESS)
    assert found.median_error < 0.05 and found.worst_error > 0.9


def test_no_constant_is_negative_even_where_that_would_fit_better():
    taken = [({"a": 1.0, "b": 1.0}, 1.0), ({"a": 2.0, "b": 1.0}, 3.0), ({"a": 3.0, "b": 1.0}, 5.0)]
    assert min(fit(taken, {"a": 1.0, "b": 1.0}).constants.values()) >= 0


def test_what_one_sample_leaves_open_comes_from_the_guess():
    found = fit([({"a": 1e6, "calls": 1.0}, 2e-3)], {"a": 1e-9, "calls": 1e-6})
    assert found.errors[0] < 0.1
    assert set(found.constants) == {"a", "calls"}  # what never occurred has no constant
    assert 0.5 < found.constants["calls"] / found.constants["a"] / 1e3 < 2


def test_a_guess_that_is_far_off_gives_way_to_the_times():
    truth = {"a": 3e-7, "b": 2e-9, "calls": 1e-6}
    found = fit(list(samples(truth, noise=0.02)), GUESS)
    assert found.constants["a"] == pytest.approx(truth["a"], rel=0.02)
    assert found.median_error < 0.02


def test_too_long_and_too_short_are_equally_wrong():
    counts = {"a": 1000.0}
    found = fit([(counts, 1e-6), (counts, 1.5e-6)], {"a": 1e-9})
    assert found.constants["a"] == pytest.approx(1.5**0.5 * 1e-9, rel=1e-3)


def test_no_constant_is_below_its_least():
    """Two features that always come together: without a bound one of them explains all."""
    samples = [({"a": n, "b": n * n}, 3e-9 * n * n) for n in (10.0, 20.0, 40.0)]
    assert fit(samples, {"a": 1e-9, "b": 1e-9}).constants["a"] < 1e-10
    bounded = fit(samples, {"a": 1e-9, "b": 1e-9}, {"a": 5e-9}).constants
    assert bounded["a"] >= 5e-9 and 0 < bounded["b"] < 3e-9


def test_what_few_samples_leave_open_comes_from_related_groups():
    """One sample is all of `a` or all of `b`; of the related group it is known."""
    truth = {"a": 1e-9, "b": 4e-8, "calls": 1e-6}
    counts = {"a": 1e5, "b": 1e5, "calls": 1.0}
    few = [(counts, sum(truth[name] * value for name, value in counts.items()))]
    found = fit_related({"many": list(samples(truth)), "few": few}, GUESS)
    assert found["few"].constants == pytest.approx(truth, rel=0.1)
    assert fit(few, GUESS).constants["a"] > 10 * truth["a"]


def test_a_group_of_many_samples_has_its_own_constants():
    near, far = {"a": 1e-9, "b": 4e-8, "calls": 1e-6}, {"a": 5e-9, "b": 1e-8, "calls": 1e-6}
    found = fit_related({"near": list(samples(near)), "far": list(samples(far))}, GUESS)
    assert found["near"].constants == pytest.approx(near, rel=0.15)
    assert found["far"].constants == pytest.approx(far, rel=0.15)


def test_noise_of_few_samples_gives_way_to_related_groups():
    """Two samples whose noise says that `a` takes no time."""
    truth = {"a": 1e-9, "b": 4e-8, "calls": 1e-6}
    few = [
        ({"a": 1e6, "b": 1e5, "calls": 1.0}, 1.15 * 5.001e-3),
        ({"a": 1.2e6, "b": 1e5, "calls": 1.0}, 0.9 * 5.201e-3),
    ]
    found = fit_related({"many": list(samples(truth)), "few": few}, GUESS)["few"].constants
    assert fit(few, truth).constants["a"] < 0.01 * truth["a"] < 0.5 * truth["a"] < found["a"]
