"""Projects with a docker_env: in containers here, and as the image of a pod."""

import hashlib
import json
import os
import subprocess
import uuid

import pytest
from mlflow.exceptions import ExecutionException

from tests.bed.runs import THERE, TRAIN, job_of, wait_for
from tests.bed.runs import run_here as run
from tests.bed.runs import run_there as run_there
from tests.cluster import dev

REPOSITORY = "localhost:5000/mlflow-compute-test"


@pytest.fixture
def docker(cluster_access, monkeypatch):
    """A docker daemon with the runner's image; a function that runs the docker client."""
    if cluster_access.docker_host:
        monkeypatch.setenv("DOCKER_HOST", cluster_access.docker_host)
    if subprocess.run(
        ["docker", "image", "inspect", dev.RUNNER_IMAGE], capture_output=True
    ).returncode:
        pytest.skip("no docker daemon with the runner's image")
    return lambda *arguments: (
        subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
    )


@pytest.fixture
def docker_project(project):
    def make(command, image=dev.RUNNER_IMAGE, more="", **files):
        return project(command, head=f"docker_env:\n  image: {image}\n{more}", **files)

    return make


def test_a_container_here_logs_like_any_other_run(
    server, docker, docker_project, seen, tmp_path, monkeypatch
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.txt").write_text("from a volume")
    monkeypatch.setenv("COPIED", "from here")
    more = f"  volumes: ['{tmp_path}/data:/data']\n  environment: [[GIVEN, by the file], COPIED]\n"
    command = (
        'python3 train.py 0.5 && cat /data/in.txt && echo "[$GIVEN] [$COPIED] $PWD" && '
        "touch made-there"
    )
    root = docker_project(command, more=more, train_dot_py=TRAIN)
    found = seen(run(root, {}).run_id)
    assert (
        found.status == "FINISHED"
        and found.metrics["loss"] == 0.5
        and found.artifact("note.txt") == b"hello"
    )
    assert (
        b"from a volume" in found.log
        and b"[by the file] [from here] /mlflow/projects/code\n" in found.log
    )
    assert found.tags["compute.image"] == dev.RUNNER_IMAGE
    assert (root / "made-there").stat().st_uid == os.getuid(), (
        "the container's user is the one who started it"
    )


def test_a_container_reaches_a_store_of_this_machine_and_local_inputs(
    docker, docker_project, tmp_path, monkeypatch
):
    import mlflow

    from tests.bed.runs import Seen
    from tests.bed.server import use

    use(f"sqlite:///{tmp_path}/store/mlflow.db", monkeypatch)
    (tmp_path / "store").mkdir()
    (tmp_path / "outside.csv").write_text("1,2")
    root = docker_project("cat {data}")
    text = (
        (root / "MLproject")
        .read_text()
        .replace("    command", "    parameters: {data: path}\n    command")
    )
    (root / "MLproject").write_text(text)
    mlflow.create_experiment("here", artifact_location=str(tmp_path / "store" / "artifacts"))
    found = Seen(
        run(
            root, {}, parameters={"data": str(tmp_path / "outside.csv")}, experiment_name="here"
        ).run_id
    )
    assert found.status == "FINISHED" and b"1,2" in found.log


def test_cancelling_stops_the_container(server, docker, docker_project, seen):
    submitted = run(
        docker_project("echo begun; sleep 600"), {"STREAM_OUTPUT": False}, synchronous=False
    )
    wait_for(lambda: docker("ps", "--quiet"))
    wait_for(lambda: seen(submitted.run_id).status == "RUNNING")
    submitted.cancel()
    assert (seen(submitted.run_id).status, seen(submitted.run_id).cause) == ("KILLED", "Cancelled")
    assert not docker("ps", "--quiet")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("local/pause:1", "has no python3, which the runner needs"),
        ("local/no-such-image:1", "docker could not start the image local/no-such-image:1"),
    ],
)
def test_an_image_that_cannot_run_fails_with_the_reason(
    server, docker, docker_project, last_run, image, words
):
    with pytest.raises(ExecutionException):
        run(docker_project("true", image=image), {})
    found = last_run()
    assert (found.status, found.cause) == ("FAILED", "EnvironmentError") and words in found.tags[
        "compute.message"
    ]


def test_a_variable_that_is_not_set_here_is_named_before_a_run_exists(server, docker_project):
    with pytest.raises(
        ExecutionException,
        match="the variable NOT_SET_HERE is not set in your environment: export NOT_SET_HERE",
    ):
        run(docker_project("true", more="  environment: [NOT_SET_HERE]\n"), {})


def test_a_pod_of_the_projects_image(cluster, docker_project, seen, kubectl, capfd):
    cluster(image="local/not-this:1")
    more = "  volumes: ['/tmp:/tmp']\n  environment: [[GIVEN, by the file]]\n"
    root = docker_project("python3 train.py 0.5; echo [$GIVEN]", more=more, train_dot_py=TRAIN)
    found = seen(run_there(root).run_id)
    assert (
        found.status == "FINISHED"
        and found.metrics["loss"] == 0.5
        and b"[by the file]" in found.log
    )
    assert found.tags["compute.image"] == dev.RUNNER_IMAGE
    assert "which the cluster does not have: /tmp:/tmp" in capfd.readouterr().err


def test_a_credential_that_a_project_asks_for_is_withheld_until_its_user_allows_it(
    cluster, docker_project, seen, kubectl, monkeypatch, capfd
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse")
    monkeypatch.setenv("COLOR", "battery-staple")
    root = docker_project(
        "echo $COLOR $AWS_SECRET_ACCESS_KEY | sha256sum",
        more="  environment: [COLOR, AWS_SECRET_ACCESS_KEY]\n",
    )
    before = kubectl("get", "jobs", "-o", "name")
    with pytest.raises(
        ExecutionException,
        match=r"asks for AWS_SECRET_ACCESS_KEY of your "
        r"environment.*'allow_env: \[AWS_SECRET_ACCESS_KEY\]'",
    ):
        run_there(root)
    assert kubectl("get", "jobs", "-o", "name") == before
    found = seen(run_there(root, {**THERE, "allow_env": ["AWS_SECRET_ACCESS_KEY"]}).run_id)
    assert found.log.startswith(
        hashlib.sha256(b"battery-staple correct-horse\n").hexdigest().encode()
    )
    everything = kubectl("get", "jobs,pods,configmaps", "-o", "yaml") + json.dumps(found.tags)
    assert "correct-horse" not in everything and "battery-staple" not in everything
    assert (
        "takes variables of your environment: AWS_SECRET_ACCESS_KEY, COLOR"
        in capfd.readouterr().err
    )


def test_a_pod_of_an_image_without_python_says_so(cluster, docker_project, last_run):
    with pytest.raises(ExecutionException):
        run_there(docker_project("true", image="local/pause:1"))
    found = last_run()
    assert (found.status, found.cause) == ("FAILED", "EnvironmentError") and (
        "image needs a python3"
    ) in found.tags["compute.message"]


@pytest.fixture
def build(docker, docker_project, cluster, mlflow_run, last_run):
    def call(text):
        root = docker_project("cat /mlflow/projects/code/text.txt; cat text.txt", text_dot_txt=text)
        config = json.dumps({**THERE, "repository": REPOSITORY})
        process = mlflow_run(root, "--build-image", "--backend-config", config)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
        return last_run(), err

    return call


def test_an_image_is_built_and_pushed_only_when_its_content_changed(build, docker, kubectl):
    one, two = uuid.uuid4().hex, uuid.uuid4().hex  # the registry keeps what earlier tests pushed
    try:
        first, told = build(one)
        assert (
            "building image" in told
            and "pushing image" in told
            and first.log.count((one + one).encode()) == 1
        )
        again, told = build(one)
        assert "building image" not in told and "pushing image" not in told
        other, told = build(two)
        assert "pushing image" in told and (two + two).encode() in other.log
        images = [
            job_of(kubectl, found)["spec"]["template"]["spec"]["containers"][0]["image"]
            for found in (first, again, other)
        ]
        assert images[0] == images[1] != images[2] and all(
            image.startswith(f"{REPOSITORY}@sha256:") for image in images
        )
    finally:
        for image in docker("images", "--quiet", REPOSITORY).split():
            docker("rmi", "--force", image)


def test_build_image_needs_a_repository_and_a_docker_env(
    cluster, docker_project, project, mlflow_run
):
    for root, config, words in (
        (docker_project("true"), THERE, "the target has no 'repository'"),
        (
            project("true", name="plain"),
            {**THERE, "repository": REPOSITORY},
            "the project has no docker_env",
        ),
    ):
        process = mlflow_run(root, "--build-image", "--backend-config", json.dumps(config))
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 1 and words in err
