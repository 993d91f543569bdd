"""Learning-rate schedules: the rates that they set."""

import numpy as np
import pytest

import pyrnn


@pytest.fixture
def optimizer():
    return pyrnn.SGD(pyrnn.Linear(1, 1, rng=0), lr=0.8)


def rates(schedule, steps):
    """The learning rate before each of the first steps."""
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.lr)
        schedule.step()
    return found


def test_step(optimizer):
    found = rates(pyrnn.schedules.Step(optimizer, 2, 0.5), 6)
    assert found == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]


def test_exponential(optimizer):
    np.testing.assert_allclose(rates(pyrnn.schedules.Exponential(optimizer, 0.5), 4), [0.8, 0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "way"),
    [("Linear", [0.8, 0.65, 0.5, 0.35, 0.2]), ("Cosine", [0.8, 0.712132, 0.5, 0.287868, 0.2])],
)
def test_warm_up_way_down_and_end(optimizer, name, way):
    make = getattr(pyrnn.schedules, name)
    np.testing.assert_allclose(rates(make(optimizer, 4, end=0.25), 7), [*way, 0.2, 0.2], rtol=1e-6)
    optimizer.lr = 0.8
    warm = rates(make(optimizer, 7, warmup=3, end=0.25), 9)
    np.testing.assert_allclose(warm, [0.2, 0.4, 0.6, *way, 0.2], rtol=1e-6)
    optimizer.lr = 0.8
    assert rates(make(optimizer, 2, warmup=2), 4) == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0])


def test_plateau(optimizer):
    schedule = pyrnn.schedules.Plateau(optimizer, gamma=0.5, patience=1, threshold=0.1)
    found = []
    for loss in [1.0, 0.95, 0.8, 0.75, 0.74, 0.73, 0.73, 0.1, 0.1]:
        schedule.step(loss)
        found.append(optimizer.lr)
    assert found == [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2]
    assert schedule.best == 0.1
    optimizer.lr = 0.8
    schedule = pyrnn.schedules.Plateau(optimizer, patience=0, threshold=0.1)
    for loss in [-1.0, -1.2, -2.0]:  # below 0 too a tenth less is progress
        schedule.step(loss)
        assert optimizer.lr == 0.8
    schedule.step(-2.1)
    assert optimizer.lr == pytest.approx(0.08)


def test_a_run_goes_on(optimizer):
    whole = rates(pyrnn.schedules.Cosine(optimizer, 9, warmup=2), 8)
    other = pyrnn.Adam(pyrnn.Linear(1, 1, rng=0), lr=0.8)
    schedule = pyrnn.schedules.Cosine(other, 9, warmup=2)
    schedule.steps = 3
    assert rates(schedule, 5) == whole[3:]
    with pytest.raises(ValueError, match="Cosine: steps is -1, expected at least 0"):
        schedule.steps = -1
    assert schedule.steps == 8


def test_a_rate_that_no_float_holds(optimizer):
    """Said in words, and the step is not taken; what becomes nothing is 0."""
    schedule = pyrnn.schedules.Exponential(optimizer, 1.15)
    schedule.steps = 5078
    before = optimizer.lr
    assert before == pytest.approx(0.8 * np.exp(5078 * np.log(1.15)), rel=1e-9)
    with pytest.raises(ValueError, match="Exponential: the learning rate after 5079 steps is more than a float"):
        schedule.step()
    assert (schedule.steps, optimizer.lr) == (5078, before)
    schedule = pyrnn.schedules.Step(optimizer, 2, 1e200)
    with pytest.raises(ValueError, match="Step: the learning rate after 4 steps"):
        schedule.steps = 4
    assert schedule.steps == 0
    optimizer.lr = 1e300
    with pytest.raises(ValueError, match="Linear: the learning rate after 1 steps"):
        pyrnn.schedules.Linear(optimizer, 1, end=1e300).step()
    optimizer.lr = 1e300
    schedule = pyrnn.schedules.Plateau(optimizer, gamma=1e100, patience=0)
    schedule.step(1.0)
    with pytest.raises(ValueError, match="Plateau: the learning rate is more than a float can hold"):
        schedule.step(1.0)
    assert optimizer.lr == 1e300
    for name, arguments in [("Exponential", (0.5,)), ("Step", (1, 0.5)), ("Linear", (9,)), ("Cosine", (9,))]:
        optimizer.lr = 0.8
        schedule = getattr(pyrnn.schedules, name)(optimizer, *arguments)
        schedule.steps = 2**63 - 1
        assert optimizer.lr == 0
        with pytest.raises(ValueError, match="steps is"):
            schedule.steps = 2**5000
