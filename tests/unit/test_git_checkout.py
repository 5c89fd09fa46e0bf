"""What git says of a project's folder, and that no program of its repository is started for it."""

import subprocess

import pytest

from mlflow_backend.files import git_checkout


def git(folder, *arguments):
    command = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "MLproject").write_text("name: p\n")
    git(tmp_path, "init", "-q", "-b", "main", root)
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def test_commit_remote_and_branch(repository):
    git(repository, "remote", "add", "origin", "https://git.example/team/p.git")
    found = git_checkout.describe(repository / "deep")
    assert found == (
        repository,
        git(repository, "rev-parse", "HEAD"),
        "https://git.example/team/p.git",
    )
    assert git_checkout.is_branch(repository, "main") and not git_checkout.is_branch(
        repository, "v1"
    )
    assert not git_checkout.is_branch(repository, None)


def test_a_folder_that_the_repository_ignores_is_none_of_its_commit(repository):
    (repository / ".gitignore").write_text("out/\n")
    (repository / "out").mkdir()
    assert git_checkout.describe(repository / "out") is None


def test_no_repository_and_none_above_the_ceiling(repository, tmp_path):
    assert git_checkout.describe(tmp_path) is None
    assert git_checkout.describe(repository / "deep", ceiling=repository) is None


def test_no_program_that_the_repository_names_is_started(repository, tmp_path):
    """core.fsmonitor runs for each command that reads the index; a partial clone fetches what it
    lacks from its remote.
    """
    mark, program = tmp_path / "started", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for name, value in {
        "core.fsmonitor": str(program),
        "core.sshCommand": str(program),
        "core.hooksPath": str(tmp_path),
        "core.pager": str(program),
        "extensions.partialClone": "origin",
        "protocol.ext.allow": "always",
        "remote.origin.url": f"ext::{program}",
        "remote.origin.promisor": "true",
        "filter.x.clean": str(program),
    }.items():
        git(repository, "config", name, value)
    (repository / ".git" / "HEAD").write_text("1" * 40 + "\n")  # an object that is not there
    git_checkout.describe(repository)
    git_checkout.is_branch(repository, "main")
    assert not mark.exists()
    subprocess.run(["git", "-C", repository, "check-ignore", "x"], capture_output=True)
    assert mark.exists(), "git itself starts it"
