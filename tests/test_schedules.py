"""Schedules at their corners."""

import numpy as np
import pytest

from scratchvae import InputError, constant, cosine, step_list, warm_up


def test_constant_is_constant():
    assert {constant(0.1)(t) for t in (0, 0.5, 100)} == {0.1}


def test_step_list_changes_at_the_start_of_the_epoch_that_it_names():
    rate = step_list(1.0, {4: 0.3, 1: 0.5, 40: 0.1})
    times = [0, 0.999, 1, 3.999, 4, 39.9, 40, 1000]
    assert [rate(t) for t in times] == [1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.1, 0.1]
    assert step_list(1.0, {})(7) == 1.0
    assert step_list(1.0, {0: 0.2})(0) == 0.2


@pytest.mark.proves("cosine")
def test_cosine_falls_from_first_to_final_and_stays_there():
    rate = cosine(1.0, 10, final=0.2)
    assert rate(0) == 1.0
    # cos(pi/2) is 6e-17 where it should be 0, cos(pi/3) and cos(pi) are as good.
    assert rate(5) == pytest.approx(0.6, rel=1e-15)
    assert rate(10 / 3) == pytest.approx(0.8, rel=1e-15)
    assert rate(10) == rate(11) == rate(1e9) == pytest.approx(0.2, rel=1e-15)
    assert cosine(1.0, 10)(10) == 0
    falling = [rate(t) for t in np.linspace(0, 10, 50)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.proves("warm-up")
def test_warm_up_rises_on_a_line_and_stays():
    beta = warm_up(4.0, 8)
    assert [beta(e) for e in (0, 1, 2, 6, 8, 9, 100)] == [0, 0.5, 1, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine(1e-3, 0), "epochs is 0: expected a finite number larger than 0"),
        (lambda: cosine("a", 3), "lr is 'a': expected a finite number, 0 or larger"),
        (lambda: cosine(1e-3, 3, "b"), "final is 'b': expected a finite number, 0 or larger"),
        (lambda: warm_up(1.0, 0), "epochs is 0: expected a finite number larger than 0"),
        (lambda: warm_up(None, 1), "value is None: expected a finite number, 0 or larger"),
        (lambda: step_list(1, [5]), "changes is [5]: expected rates by epochs, such as {10: 1e-4}"),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run_is_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value) == message
