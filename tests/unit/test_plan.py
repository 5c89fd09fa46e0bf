"""A plan is a value: JSON and back, and without credentials for others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_backend.plan.plan import UNKNOWN_RUN, Place, Plan, Source
from mlflow_runner.contract.submission import Archive, Download, Submission

TEXT = st.text(max_size=8)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
SUBMISSION = Submission(
    run_id=UNKNOWN_RUN,
    experiment_id="0",
    tracking_uri="http://mlflow:5000",
    command="python train.py",
    project_dir="/p",
    scratch_dir="/s",
    cache_dir="/c",
)
PLANS = st.builds(
    Plan,
    st.builds(Source, TEXT, TEXT, st.none() | TEXT, TEXT, TEXTS),
    st.builds(Place, TEXT, TEXT, TEXTS, st.none() | TEXT, st.none() | TEXT),
    st.builds(
        SUBMISSION._replace,
        command=TEXT,
        archive=st.none() | st.builds(Archive, TEXT, TEXT),
        downloads=st.lists(st.builds(Download, TEXT, TEXT), max_size=2).map(tuple),
    ),
    TEXT,
    TEXTS,
    st.lists(TEXT, max_size=3).map(tuple),
    st.integers(0, 2**40),
)


@given(PLANS)
def test_a_plan_survives_json(plan):
    assert Plan.from_json(plan.to_json()) == plan


@given(PLANS)
def test_a_plan_without_credentials_is_public_as_it_is(plan):
    assert plan.without_secrets().without_secrets() == plan.without_secrets()


def test_no_credential_of_a_url_is_in_what_others_read():
    login = "https://ada:s3cr3t@host/a?sig=s3cr3t"
    plan = Plan(
        Source(login, "demo", None, "main", {"data": login}),
        Place("gpu", "targets.yaml", {"tracking_uri": login, "env": {"A": login}}),
        SUBMISSION._replace(
            tracking_uri=login, command=f"train {login}", downloads=(Download(login, "/d"),)
        ),
        "ada",
        {"MLFLOW_REGISTRY_URI": login},
        ("MLFLOW_TRACKING_PASSWORD",),
    )
    text = plan.without_secrets().to_json()
    assert "s3cr3t" not in text and "https://host/a?***" in text
    assert "MLFLOW_TRACKING_PASSWORD" in text
    assert json.loads(text)["submission"]["command"] == "train https://host/a?***"


def test_what_the_runner_gets_holds_the_plan_for_others():
    plan = Plan(
        Source(".", "demo", None, "main", {}), Place("local", "this machine", {}), SUBMISSION, "a"
    )
    submission = plan.submission_of("r" * 32, "7")
    assert (submission.run_id, submission.experiment_id) == ("r" * 32, "7")
    assert Plan.from_json(submission.plan) == plan
    assert Submission.from_json(submission.to_json()) == submission


@pytest.mark.parametrize("text", ["", "7", "[]", "{}", '{"source": {}}', "[" * 100_000])
def test_other_text_is_one_error(text):
    with pytest.raises(ValueError, match=r"^\w+Error: |Expecting value"):
        Plan.from_json(text)
