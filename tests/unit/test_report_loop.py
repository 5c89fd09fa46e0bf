"""How often the reporter asks MLflow for a run that goes on."""

from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.report.loop import LOOK_S, look_again_s


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_an_old_run_is_asked_for_less_often_than_a_young_one(began_s, age_s):
    wait_s = look_again_s(began_s, began_s + age_s) - (began_s + age_s)
    assert LOOK_S[0] - 1e-6 <= wait_s <= LOOK_S[1] + 1e-6


def test_a_run_of_an_hour_costs_a_few_dozen_calls_and_each_further_hour_at_most_thirty():
    now_s, calls = 0.0, []
    while now_s < 7200:
        now_s = look_again_s(0.0, now_s)
        calls.append(now_s)
    assert (
        sum(moment <= 3600 for moment in calls) <= 60
        and sum(3600 < moment <= 7200 for moment in calls) <= 30
    )
