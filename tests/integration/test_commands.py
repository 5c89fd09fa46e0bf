"""`mlflow-compute` as typed where a server is away, and what its listing commands show.

No cluster is needed: none may be asked.
"""

import json
import socket
import sqlite3
import subprocess
import urllib.request

import pytest
import yaml
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from mlflow_backend.cli import COMMANDS, main
from mlflow_backend.controller import serve
from mlflow_backend.controller.runs import ServerRuns
from mlflow_backend.places.kubernetes import runs
from mlflow_backend.supervision.diagnosis import Diagnosis
from mlflow_runner.contract.tags import END_TAGS
from tests.bed.server import BIN, use

SENT = {
    "compute.job": "j",
    "compute.job_uid": "u",
    "compute.cluster": "c",
    "compute.namespace": "n",
    "compute.context": "away",
}
NEED_MLFLOW = {
    "cancel": [["RUN"]],
    "env": [["show", "--run", "RUN"]],
    "logs": [["RUN"], ["RUN", "-f"]],
    "runs": [[], ["--all"], ["--settle"], ["--experiment", "Default"], ["--json"]],
    "settle": [[], ["RUN"]],
    "wait": [["RUN"], ["RUN", "--no-logs"]],
}
NEED_NO_MLFLOW = {"controller", "explain", "targets"}
NEED_CLUSTER = [
    ["cancel", "RUN"],
    ["logs", "-f", "RUN"],
    ["wait", "RUN"],
    ["wait", "--no-logs", "RUN"],
    ["env", "lock", "--target", "none"],
]


@pytest.fixture
def closed_port():
    """A port on which nothing listens, as long as the test lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def cluster_away(tmp_path, monkeypatch, closed_port):
    """A kubeconfig whose cluster does not answer; the server's address."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "away", "cluster": {"server": f"http://127.0.0.1:{closed_port}"}}],
        "users": [{"name": "away", "user": {"token": "t"}}],
        "contexts": [
            {"name": "away", "context": {"cluster": "away", "user": "away", "namespace": "n"}}
        ],
        "current-context": "away",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return f"http://127.0.0.1:{closed_port}"


@pytest.fixture
def sent(server):
    """A function that makes a run as a submit leaves it; its id.

    Afterwards no test that settles all runs meets it.
    """
    made = []

    def make(experiment_id="0", status="RUNNING", **tags):
        names = {key.replace("_", ".", 1): value for key, value in tags.items()}
        run_id = MlflowClient().create_run(experiment_id, tags={**SENT, **names}).info.run_id
        MlflowClient().update_run(run_id, status)
        made.append(run_id)
        return run_id

    yield make
    for run_id in made:
        MlflowClient(server.uri).delete_run(run_id)


@pytest.fixture
def experiment(server, request):
    """The id of an experiment of the test's own."""
    return MlflowClient().create_experiment(request.node.name)


def called(*arguments):
    """Exit code, standard output and standard error of the command, run in this process.

    An exception that leaves it fails the test.
    """
    result = CliRunner().invoke(main, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def rows(output):
    """The rows of a table of the commands below its head, cell by cell."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in output.splitlines()[1:]
    ]


def test_every_command_is_in_one_of_these_lists():
    assert NEED_MLFLOW.keys() | NEED_NO_MLFLOW == COMMANDS.keys()


@pytest.mark.parametrize(
    "arguments",
    [[name, *rest] for name, forms in NEED_MLFLOW.items() for rest in forms],
    ids=" ".join,
)
def test_a_tracking_server_that_is_away_is_one_line(
    arguments, monkeypatch, closed_port, cluster_away
):
    uri = f"http://127.0.0.1:{closed_port}"
    use(uri, monkeypatch)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, output, errors = called(*arguments)
    (line,) = errors.splitlines()
    what, _, why = line.partition(": tracking server ")
    assert (code, why) == (
        1,
        f"{uri} cannot be reached: Connection refused: check MLFLOW_TRACKING_URI",
    )
    assert what.startswith("Error: ")
    if "--json" in arguments:
        error = json.loads(output)["error"]
        assert line == f"Error: {error['message']}: {error['hint']}"
        assert error["code"] == "TrackingUnavailable"
    else:
        assert output == ""


def test_as_typed_it_is_one_line_too_and_takes_seconds(monkeypatch, closed_port):
    use(f"http://127.0.0.1:{closed_port}", monkeypatch)
    done = subprocess.run(
        [BIN / "mlflow-compute", "runs"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


@pytest.mark.parametrize("arguments", NEED_CLUSTER, ids=" ".join)
def test_a_cluster_that_is_away_is_one_line(arguments, sent, cluster_away):
    run_id = sent()
    before = MlflowClient().get_run(run_id).to_dictionary()
    code, output, errors = called(*(run_id if word == "RUN" else word for word in arguments))
    (line,) = errors.splitlines()
    assert (code, output) == (1, "") and line.startswith("Error: ") and cluster_away in line
    assert MlflowClient().get_run(run_id).to_dictionary() == before


@pytest.mark.parametrize(
    "arguments", [["settle"], ["runs", "--settle", "--experiment"]], ids=" ".join
)
def test_runs_that_cannot_be_settled_are_counted_and_said_once(
    arguments, sent, cluster_away, experiment, request
):
    run_ids = [sent(experiment) for _ in range(3)]
    arguments = [*arguments, *([request.node.name] if arguments[0] == "runs" else run_ids)]
    code, _, errors = called(*arguments)
    lines = [line for line in errors.splitlines() if " checked, " not in line]
    assert (
        code == 1
        and len(lines) == 1
        and lines[0].startswith("3 not settled: ")
        and cluster_away in lines[0]
    )


def test_targets_are_listed_though_the_cluster_is_away(cluster_away):
    code, output, errors = called("targets")
    assert (code, output, len(errors.splitlines())) == (0, "", 2)
    assert errors.splitlines()[1].startswith("The cluster's own list could not be read: ")


def test_what_only_shows_asks_no_cluster_and_changes_nothing(
    sent, cluster_away, experiment, request
):
    run_id = sent(experiment)
    before = MlflowClient().get_run(run_id).to_dictionary()
    code, output, errors = called("runs", "--experiment", request.node.name, "--json")
    assert (code, [run["run_id"] for run in json.loads(output)], errors) == (0, [run_id], "")
    assert called("logs", run_id) == (
        0,
        "",
        f"run {run_id}: has no stored output yet; --follow shows it as it is written\n",
    )
    assert MlflowClient().get_run(run_id).to_dictionary() == before


def test_a_runs_log_is_shown_in_the_order_of_its_parts(sent, cluster_away):
    run_id = sent()
    for number in (9999, 10000, 1):
        MlflowClient().log_text(run_id, f"part {number}\n", f"logs/20260101-000000.{number:04}.txt")
    done = subprocess.run(
        [BIN / "mlflow-compute", "logs", run_id], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("part 1\npart 9999\npart 10000\n", "")


def test_texts_from_mlflow_are_data_in_a_table(sent, experiment, request):
    run_id = sent(experiment)
    client = MlflowClient()
    client.set_tag(run_id, "compute.target", "[red]exp[/x] :smile:")
    client.update_run(run_id, name="\x1b]0;owned\x07[link=https://evil]é")
    code, output, _ = called("runs", "--experiment", request.node.name)
    ((shown_id, name, target, status, *_),) = rows(output)
    assert (code, shown_id, status) == (0, run_id, "RUNNING")
    assert (name, target) == (r"\x1b]0;owned\x07[link=https://evil]é", "[red]exp[/x] :smile:")


def test_texts_from_mlflow_are_data_in_a_line(sent):
    run_id = sent(
        status="FAILED",
        compute_status="FAILED",
        compute_cause="ExitCode",
        compute_message="a\x1b[2Jb\nc",
    )
    assert called("wait", run_id) == (1, "", "FAILED, ExitCode: a\\x1b[2Jb\\nc\n")


def test_an_output_that_is_not_utf_8_shows_what_it_cannot_encode(
    sent, experiment, request, monkeypatch
):
    MlflowClient().update_run(sent(experiment), name="é")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    command = [BIN / "mlflow-compute", "runs", "--experiment", request.node.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, rows(done.stdout)[0][1]) == (0, "", r"\xe9")


def test_runs_are_listed_the_newest_first_whatever_their_state_and_page(server, sent, monkeypatch):
    monkeypatch.setattr(runs, "PAGE", 3)
    monkeypatch.setattr(runs, "EXPERIMENTS_OF_A_CALL", 2)
    client, created = MlflowClient(), []
    experiments = [client.create_experiment(f"newest-{number}") for number in range(3)]
    for number in range(20):
        experiment_id, status = (
            experiments[number % 3],
            ("RUNNING", "SCHEDULED", "FINISHED")[number % 5 % 3],
        )
        created.insert(
            0,
            (
                client.create_run(experiment_id, start_time=1000 + number, tags=SENT).info.run_id,
                status,
            ),
        )
        client.update_run(created[0][0], status)
        client.create_run(experiment_id, start_time=1000 + number)
    assert [run.info.run_id for run in runs.search(experiments, unfinished=False)] == [
        run_id for run_id, _ in created
    ]
    unfinished = [run_id for run_id, status in created if status != "FINISHED"]
    assert [run.info.run_id for run in runs.search(experiments, unfinished=True)] == unfinished


def test_runs_of_all_experiments_are_listed(own_server, tmp_path, monkeypatch):
    use(own_server.uri, monkeypatch)
    with sqlite3.connect(tmp_path / "server" / "mlflow.db") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(experiments)")]
        values = dict(
            zip(columns, database.execute("SELECT * FROM experiments").fetchone(), strict=True)
        )
        many = [
            {**values, "experiment_id": number, "name": f"e{number}"} for number in range(1, 1202)
        ]
        database.executemany(
            f"INSERT INTO experiments VALUES ({', '.join(f':{name}' for name in columns)})", many
        )
    sent_runs = {
        MlflowClient().create_run(experiment_id, tags=SENT).info.run_id
        for experiment_id in ("0", "1", "1201")
    }
    assert {run.info.run_id for run in runs.search(None, unfinished=True)} == sent_runs


def test_settling_all_looks_only_at_runs_that_say_which_cluster_they_were_sent_to(sent):
    run_id = sent()
    MlflowClient().delete_tag(run_id, "compute.cluster")
    other = sent()
    found = {
        run.info.run_id for run in runs.search(None, unfinished=True, with_tag="compute.cluster")
    }
    assert other in found and run_id not in found
    code, _, errors = called("settle", run_id)
    why = (
        f"run {run_id}: does not say which cluster it was sent to (tag compute.cluster): its Job "
        "is left alone"
    )
    assert (code, errors.splitlines()) == (1, [f"1 not settled: {why}", "1 checked, 0 settled"])


@pytest.mark.parametrize(
    "make", [lambda uri: runs.ClientRuns(), ServerRuns], ids=["client", "rest"]
)
def test_children_are_the_nested_runs_directly_below_that_have_not_ended(
    server, sent, make, monkeypatch
):
    monkeypatch.setattr("mlflow_backend.controller.runs.PAGE", 2)
    monkeypatch.setattr(runs, "PAGE", 2)
    client, parent = MlflowClient(), sent()
    nested = {"mlflow.parentRunId": parent}
    unfinished = {client.create_run("0", tags=nested).info.run_id for _ in range(6)}
    client.update_run(min(unfinished), "SCHEDULED")
    client.set_terminated(client.create_run("0", tags=nested).info.run_id, "FINISHED")
    client.delete_run(client.create_run("0", tags=nested).info.run_id)
    client.create_run("0", tags={"mlflow.parentRunId": min(unfinished)})
    known = runs.record_of(client.get_run(parent))
    assert {run.run_id for run in make(server.uri).children(known)} == unfinished


@pytest.mark.parametrize(
    "make", [lambda uri: runs.ClientRuns(), ServerRuns], ids=["client", "rest"]
)
def test_an_end_leaves_nothing_of_an_earlier_one(server, sent, make):
    stopped = {
        "compute_status": "KILLED",
        "compute_cause": "Terminated",
        "compute_message": "stopped",
        "compute_exit_code": "143",
    }
    run_id = sent(status="KILLED", **stopped)
    make(server.uri).end(run_id, Diagnosis("FINISHED", None, "", exit_code=0))
    run = MlflowClient().get_run(run_id)
    told = {name: value for name, value in run.data.tags.items() if name in END_TAGS}
    assert (run.info.status, told) == (
        "FINISHED",
        {"compute.status": "FINISHED", "compute.exit_code": "0"},
    )
    assert runs.has_ended(run)


@pytest.mark.parametrize(
    ("arguments", "variable", "namespaces"),
    [
        ([], None, ["n"]),
        ([], " a, b,,a ", ["a", "b"]),
        (["--namespace", "c", "--namespace=d", "--namespace", "c"], "a", ["c", "d"]),
    ],
    ids=["its own", "the variable's", "those of the command line"],
)
def test_a_controller_looks_after_the_namespaces_it_is_told(
    arguments, variable, namespaces, cluster_away, monkeypatch
):
    if variable:
        monkeypatch.setenv("MLFLOW_COMPUTE_NAMESPACES", variable)
    served = []
    monkeypatch.setattr(
        serve,
        "serve",
        lambda own, clusters, *_: served.append(
            (own.namespace, [item.namespace for item in clusters])
        ),
    )
    assert called("controller", *arguments) == (0, "", "")
    assert served == [("n", namespaces)]


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        (None, "is not set: the controller needs the http(s) address of a tracking server"),
        (
            "sqlite:///x.db",
            "sqlite:///x.db: the controller needs the http(s) address of a tracking server",
        ),
        (
            "http://ada:s3cret@host",
            "contains a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        ),
    ],
)
def test_a_controller_without_a_server_ends_with_one_line(uri, why, cluster_away, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri) if uri else monkeypatch.delenv(
        "MLFLOW_TRACKING_URI", raising=False
    )
    assert called("controller") == (1, "", f"Error: MLFLOW_TRACKING_URI: {why}\n")


def test_a_controller_waits_for_a_cluster_that_is_away_with_one_line_for_each_try(
    server, cluster_away, closed_port
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [BIN / "mlflow-compute", "controller", "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stderr.readline() for _ in range(2)]
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10).status == 200
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert all("could not be acquired: " in line and cluster_away in line for line in lines)
