"""The API of a cluster: what is asked, what is asked again, and what each refusal means."""

import json
import subprocess
import sys

import pytest

from mlflow_backend.errors import AlreadyExists, ClusterError, ClusterUnavailable
from mlflow_backend.places.kubernetes.client.api import Cluster
from mlflow_backend.places.kubernetes.client.connect import connect
from tests.bed.apiserver import Answer, ApiServer, listing, refusal, write_kubeconfig

WHERE = "context test, namespace n: cannot"
JOB = {"kind": "Job", "metadata": {"name": "j"}}
HTML = Answer(body=b"<html>Log in</html>")


def test_a_change_of_kubeconfig_counts_at_once(tmp_path, monkeypatch):
    def use(name, namespace):
        path = tmp_path / f"{name}.yaml"
        write_kubeconfig(
            path, name=name, namespace=namespace, current=name, server=f"https://{name}.example.com"
        )
        monkeypatch.setenv("KUBECONFIG", str(path))

    use("first", "one")
    first = connect()
    assert (first.context, first.namespace) == ("first", "one") and connect() is first, (
        "connections stay open"
    )
    use("second", "two")
    assert (connect().context, connect().namespace) == ("second", "two")
    assert connect(namespace="mine").namespace == "mine"
    use("second", "three")
    assert connect().namespace == "three"


def test_a_kubeconfig_that_is_written_again_renews_the_login_of_the_same_cluster(api, kubeconfig):
    api.answers["list pods"] = [listing()]
    clusters = set()
    for number in range(5):
        write_kubeconfig(kubeconfig, user={"token": f"token-{number}"}, server=api.url)
        clusters.add(connect())
        connect().list_objects("Pod", "a=b")
    assert len(clusters) == 1
    assert [call.token for call in api.calls] == [f"token-{number}" for number in range(5)]


def test_a_kubeconfig_that_names_another_server_gives_another_cluster(api, kubeconfig):
    first = connect()
    other = ApiServer()
    try:
        write_kubeconfig(kubeconfig, server=other.url)
        assert connect() is not first
    finally:
        other.close()


def test_a_token_that_has_run_out_is_read_again_once_and_the_call_repeated(
    api, cluster, kubeconfig
):
    write_kubeconfig(kubeconfig, user={"token": "second"}, server=api.url)
    api.answers["create jobs"] = [refusal(401), Answer(201, JOB)]
    assert cluster.create(JOB) == JOB
    assert [call.token for call in api.calls] == ["first", "second"]
    api.answers["create jobs"] = [refusal(401, "Unauthorized")]
    with pytest.raises(ClusterError) as raised:
        cluster.create(JOB)
    assert str(raised.value) == (
        f"{WHERE} create Job j: not logged in (401): renew the kubeconfig's credentials"
    )
    assert type(raised.value) is ClusterError and raised.value.code == "LoginFailed"
    assert api.count("create jobs") == 4


def test_a_login_is_never_renewed_with_that_of_another_server(api, cluster, kubeconfig):
    write_kubeconfig(kubeconfig, server="http://localhost:1")
    api.answers["delete jobs"] = [refusal(401)]
    with pytest.raises(
        ClusterError,
        match=r"the kubeconfig's server was .* and is now http://localhost:1: start again",
    ):
        cluster.delete_job("j", "1")
    assert api.count("delete jobs") == 1


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_server_refuses_for_now_is_sent_again_when_it_says(api, cluster, status):
    api.answers["create jobs"] = [refusal(status, Retry_After="3")] * 10 + [Answer(201, JOB)]
    assert cluster.create(JOB) == JOB
    assert cluster.slept == [3] * 10 and api.count("create jobs") == 11


def test_patience_with_a_server_that_always_refuses_ends_after_ten_repetitions(api, cluster):
    api.answers["create jobs"] = [refusal(429, "too many", Retry_After="1")]
    with pytest.raises(ClusterUnavailable) as raised:
        cluster.create(JOB)
    assert str(raised.value) == f"{WHERE} create Job j: too many" and api.count("create jobs") == 11


@pytest.mark.parametrize(
    "answer",
    [
        refusal(503),
        refusal(429),
        refusal(500),
        refusal(500, Retry_After="1"),
        refusal(504, Retry_After="1"),
        refusal(503, Retry_After="3600"),
        refusal(503, Retry_After="soon"),
        refusal(429, Retry_After="Wed, 25 Nov 2026 10:00:00 GMT"),
        HTML,
        Answer(body=[]),
        Answer(cut=True),
    ],
    ids=lambda answer: (
        f"{answer.status} {answer.headers.get('Retry-After', '')} {answer.cut or ''}"
    ),
)
def test_what_may_have_been_executed_is_never_sent_again(api, cluster, answer):
    api.answers["create jobs"] = [answer]
    with pytest.raises(ClusterUnavailable):
        cluster.create(JOB)
    assert api.count("create jobs") == 1 and cluster.slept == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_be_executed_twice_is_sent_again_whenever_the_server_says_so(api, cluster, status):
    api.answers["create jobs"] = [refusal(status, Retry_After="1"), Answer(201, JOB)]
    api.answers["get jobs"] = [refusal(status, Retry_After="2"), Answer(body=JOB)]
    api.answers["watch jobs"] = [
        refusal(status, Retry_After="4"),
        Answer(stream=[{"type": "ADDED", "object": JOB}]),
    ]
    assert cluster.create(JOB, dry_run=True) == cluster.read_job("j") == JOB
    assert [event["type"] for event in cluster.watch_objects("Job", "a=b", "1", 5)] == ["ADDED"]
    assert cluster.slept == [1, 2, 4]


def test_a_connection_that_the_server_has_closed_meanwhile_is_made_again_for_what_may_be_executed_twice(
    api, cluster
):
    api.answers["get jobs"] = [Answer(cut=True), Answer(body=JOB), Answer(cut=True)]
    assert cluster.read_job("j") == JOB and api.count("get jobs") == 2
    with pytest.raises(ClusterUnavailable):
        cluster.read_job("j")
    assert api.count("get jobs") == 4


@pytest.mark.parametrize("status", [408, 410, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_unavailable(api, cluster, status):
    api.answers["get jobs"] = [refusal(status, "later")]
    with pytest.raises(ClusterUnavailable) as raised:
        cluster.read_job("j")
    assert str(raised.value) == f"{WHERE} get Job j: later"


@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 413, 415, 422])
def test_a_refusal_that_repeating_does_not_change_is_no_unavailability(api, cluster, status):
    api.answers["get jobs"] = [refusal(status)]
    with pytest.raises(ClusterError) as raised:
        cluster.read_job("j")
    assert type(raised.value) is ClusterError


def test_a_refused_watch_and_a_refused_log_are_known_as_permanent(api, cluster):
    for what, read in [
        ("watch jobs", lambda: cluster.watch_objects("Job", "a", "1", 5)),
        ("log", lambda: cluster.follow_log("p", None)),
    ]:
        api.answers[what] = [refusal(403, 'pods "p" is forbidden: User "ada" cannot do it')]
        with pytest.raises(ClusterError) as raised:
            list(read())
        assert type(raised.value) is ClusterError
        assert str(raised.value).endswith(
            ': pods "p" is forbidden: User "ada" cannot do it: ask an administrator of the '
            "namespace for the Role mlflow-compute-submitter"
        )
        assert raised.value.code == "ClusterForbidden"


def test_a_namespace_that_does_not_exist_is_not_found(api, cluster):
    api.answers["create jobs"] = [refusal(404, 'namespaces "n" not found')]
    with pytest.raises(ClusterError) as raised:
        cluster.create(JOB)
    assert raised.value.code == "NotFound"
    assert raised.value.hint == "create the namespace or correct 'namespace' in the target"


def test_connections_that_fail_are_unavailability_and_a_wrong_address_is_not(
    api, cluster, kubeconfig
):
    api.close()
    with pytest.raises(ClusterUnavailable) as raised:
        cluster.read_job("j")
    assert str(raised.value) == (
        f"cluster {api.url} (context test) cannot be reached: Connection refused: check the "
        "address and VPN"
    )
    write_kubeconfig(kubeconfig, server="https://:::")
    with pytest.raises(ClusterError) as raised:
        Cluster().read_job("j")
    assert type(raised.value) is ClusterError and raised.value.code == "InvalidKubeconfig"


def test_an_object_that_exists_is_an_error_of_its_own(api, cluster):
    api.answers["create configmaps"] = [
        refusal(409, 'configmaps "c" already exists', "AlreadyExists")
    ]
    with pytest.raises(AlreadyExists) as raised:
        cluster.create({"kind": "ConfigMap", "metadata": {"name": "c"}})
    assert str(raised.value) == f'{WHERE} create ConfigMap c: configmaps "c" already exists'


@pytest.mark.parametrize("status", [200, 404, 409])
def test_a_job_is_deleted_by_its_uid_and_another_of_its_name_is_left_alone(api, cluster, status):
    api.answers["delete jobs"] = [refusal(status) if status != 200 else Answer(body={})]
    cluster.delete_job("j", "uid-1")
    assert [call.body for call in api.calls] == [
        {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}
    ]


@pytest.mark.parametrize(
    ("asked", "sent"), [(None, None), (-3597, "1"), (0, "1"), (0.4, "1"), (1, "1"), (2.9, "2")]
)
def test_a_log_is_never_asked_for_less_than_a_second(api, cluster, asked, sent):
    api.answers["log"] = [Answer(stream=[b"t line\nt rest"])]
    assert list(cluster.follow_log("p", asked)) == [b"t line\n", b"t rest"]
    assert api.calls[0].query.get("sinceSeconds") == sent


def test_the_server_s_time_counts_also_when_it_refuses(api, cluster):
    api.answers["list events"] = [refusal(403, Date="Wed, 01 Jan 2020 00:00:00 GMT")]
    assert cluster.list_events("Pod", "p") == []  # the user may not read events
    assert 1577836800 <= cluster.now_s() < 1577836800 + 60


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_outage_is_not_an_answer_without_events(api, cluster, status):
    api.answers["list events"] = [refusal(status)]
    with pytest.raises(ClusterUnavailable):
        cluster.list_events("Pod", "p")


@pytest.mark.parametrize("status", [200, 403, 404, 409])
@pytest.mark.parametrize(("by_force", "options"), [(False, {}), (True, {"gracePeriodSeconds": 0})])
def test_a_pod_is_released_by_its_uid_where_the_user_may(api, cluster, status, by_force, options):
    api.answers["delete pods"] = [refusal(status) if status != 200 else Answer(body={})]
    cluster.release_pod("p", "uid-1", by_force)
    assert [call.body for call in api.calls] == [{"preconditions": {"uid": "uid-1"}, **options}]


def test_a_list_comes_in_pages_and_one_that_has_expired_meanwhile_is_unavailable(api, cluster):
    api.answers["list pods"] = [
        listing({"n": 1}, version="7", **{"continue": "more"}),
        listing({"n": 2}, version="7"),
    ]
    assert cluster.list_objects("Pod", "a=b", lambda item: item["n"]) == ([1, 2], "7")
    assert [(call.query["limit"], call.query.get("continue")) for call in api.calls] == [
        ("50", None),
        ("50", "more"),
    ]
    api.answers["list pods"] = [listing({"n": 1}, **{"continue": "old"}), refusal(410)]
    with pytest.raises(ClusterUnavailable):
        cluster.list_objects("Pod", "a=b")


def test_nodes_and_pods_of_all_namespaces_come_in_pages_of_what_is_kept_or_not_at_all(api, cluster):
    api.answers["list nodes"] = [listing({"n": 1}, **{"continue": "more"}), listing({"n": 2})]
    api.answers["list pods"] = [listing({"n": 3}, **{"continue": "more"}), listing({"n": 4})]
    assert cluster.list_nodes(lambda item: item["n"]) == [1, 2] and cluster.list_scheduled_pods(
        lambda item: item["n"]
    ) == [3, 4]
    assert {call.query["limit"] for call in api.calls} == {"500"}
    api.answers["list nodes"] = api.answers["list pods"] = [refusal(403)]
    assert cluster.list_nodes(dict) == [] and cluster.list_scheduled_pods(dict) is None


def test_a_config_map_of_another_namespace(api, cluster):
    api.answers["get configmaps"] = [Answer(body={"data": {}}), refusal(404)]
    assert (
        cluster.read_config_map("c", "elsewhere") == {"data": {}}
        and cluster.read_config_map("c") is None
    )
    assert [call.path for call in api.calls] == [
        "/api/v1/namespaces/elsewhere/configmaps/c",
        "/api/v1/namespaces/n/configmaps/c",
    ]


@pytest.mark.parametrize(
    ("told", "fits"),
    [
        ("v1.30.0", True),
        ("v1.34.2+k3s1", True),
        ("v2.0.0", True),
        ("unknown", True),
        ("v1.29.9-gke.1", False),
        ("v1.9.1", False),
    ],
)
def test_a_cluster_that_is_too_old_is_refused_before_anything_is_created(api, cluster, told, fits):
    api.answers["get version"] = [Answer(body={"gitVersion": told})]
    api.answers["create jobs"] = [Answer(201, JOB)]
    if fits:
        cluster.check([JOB])
    else:
        with pytest.raises(ClusterError) as raised:
            cluster.check([JOB])
        version = told.partition(".9-")[0].removesuffix(".1")
        assert str(raised.value) == (
            f"context test: Kubernetes {version} is too old: 1.30 or later is needed: upgrade the "
            "cluster"
        )
        assert raised.value.code == "UnsupportedCluster"
    assert [call.query for call in api.calls if call.what == "create jobs"] == [{"dryRun": "All"}]


def test_a_check_sends_no_data_and_a_version_that_is_not_told_is_no_obstacle(api, cluster):
    api.answers["get version"] = [refusal(403)]
    api.answers["create secrets"] = [Answer(201, {})]
    cluster.check([{"kind": "Secret", "metadata": {"name": "s"}, "data": {"token": "c2VjcmV0"}}])
    assert [call.body for call in api.calls if call.what == "create secrets"] == [
        {"kind": "Secret", "metadata": {"name": "s"}}
    ]


def test_a_stream_that_is_left_early_does_not_spoil_the_connection_for_the_next_call(api, cluster):
    api.answers["watch jobs"] = [Answer(stream=[{"type": "ADDED", "object": JOB}] * 3)]
    api.answers["get jobs"] = [Answer(body=JOB)]
    for _ in range(5):
        for _event in cluster.watch_objects("Job", "a=b", "1", 5):
            break
        assert cluster.read_job("j") == JOB


def test_nothing_is_asked_once_the_process_ends(api, cluster):
    cluster.close()
    with pytest.raises(ClusterError, match="the process is exiting"):
        cluster.read_job("j")
    assert api.calls == []


def test_the_process_ends_although_threads_read(api, kubeconfig):
    code = (
        "from mlflow_backend.places.kubernetes.client.connect import connect\nc = connect(); c.start_thread(lambda: "
        "list(c.watch_objects('Job', 'a=b', '1', 300)), 'w')\nimport sys; sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    api.until(lambda: api.watching == 1)
    said = process.communicate("\n", timeout=30)[1]
    assert (process.returncode, said) == (0, "")
    api.until(lambda: api.watching == 0)


def test_every_request_is_told(api, cluster):
    told = []
    cluster.on_call = told.append
    api.answers["list pods"] = [
        refusal(429, Retry_After="1"),
        listing(**{"continue": "x"}),
        listing(),
    ]
    cluster.list_objects("Pod", "a=b")
    assert told == ["list Pods"] * 3


def test_no_token_is_in_any_error(api, kubeconfig):
    write_kubeconfig(kubeconfig, user={"token": "s3cr3t-token"}, server=api.url)
    cluster = Cluster()
    for answer in (refusal(401), refusal(403), refusal(500), HTML, Answer(cut=True)):
        api.answers["get jobs"] = [answer]
        with pytest.raises(ClusterError) as raised:
            cluster.read_job("j")
        assert "s3cr3t" not in json.dumps([str(raised.value), repr(raised.value.__cause__)])
