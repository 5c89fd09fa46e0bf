"""The contract between client and runner survives its journey."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_runner.contract.submission import Archive, Download, Environment, Submission
from mlflow_runner.contract.topology import Topology

TEXT = st.text(max_size=20)
SECONDS = st.floats(0, 1e6)
SUBMISSIONS = st.builds(
    Submission,
    run_id=TEXT, experiment_id=TEXT, tracking_uri=TEXT, command=TEXT, project_dir=TEXT, scratch_dir=TEXT, cache_dir=TEXT,
    grace_period_s=SECONDS,
    report_timeout_s=SECONDS,
    least_lifetime_s=SECONDS,
    phases=st.lists(st.tuples(TEXT, st.floats(0, 1e6)), max_size=3).map(tuple),
    unpack_dir=st.none() | TEXT,
    topology=st.builds(Topology, kind=TEXT, size=st.integers(1, 9)),
    archive=st.none() | st.builds(Archive, sha256=TEXT, path=st.none() | TEXT, artifact=st.none() | TEXT),
    downloads=st.lists(st.builds(Download, uri=TEXT, path=TEXT), max_size=3).map(tuple),
    environment=st.none() | st.builds(Environment, key=TEXT, python=st.none() | TEXT, platform=TEXT, lock_dir=TEXT, variables=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)),
)  # fmt: skip


@settings(max_examples=40)
@given(SUBMISSIONS)
def test_a_submission_read_back_is_the_one_written(submission):
    assert Submission.from_json(submission.to_json()) == submission
    assert Submission.from_json(submission.to_json()).to_json() == submission.to_json()
