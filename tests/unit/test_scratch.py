"""Temporary folders: only their user can open them, and none stays behind."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from mlflow_backend import scratch

BEGINNING = """
import os, signal, sys, threading
from mlflow_backend import scratch
"""


def start(program, tmp_path, **keywords):
    return subprocess.Popen(
        [sys.executable, "-c", BEGINNING + program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


def folders_of(tmp_path):
    return [path.name for path in tmp_path.iterdir()]


def test_a_folder_is_its_user_s_alone_and_ends_with_its_context(tmp_path):
    previous = os.umask(0)
    try:
        with scratch.folder(tmp_path) as path:
            assert path.parent == tmp_path and stat.S_IMODE(path.stat().st_mode) == 0o700
            (path / "a").mkdir()
            (path / "a" / "b").write_text("x")
    finally:
        os.umask(previous)
    assert not folders_of(tmp_path)


def test_an_error_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch.folder(tmp_path):
        raise KeyboardInterrupt
    assert not folders_of(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_and_nothing_else_is_removed(tmp_path):
    with pytest.raises(FileNotFoundError), scratch.folder(tmp_path / "missing"):
        pass
    assert not folders_of(tmp_path)


def test_what_is_deep_or_read_only_is_removed_and_what_a_link_points_to_stays(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    path = scratch.make(tmp_path)
    (path / "link").symlink_to(kept)
    here = os.open(path, os.O_RDONLY)
    for _ in range(3_000):  # deeper than a path may be long, and than the stack
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    read_only = path / "read-only"
    read_only.mkdir()
    (read_only / "file").write_text("x")
    read_only.chmod(0o500)
    scratch.discard(path)
    assert folders_of(tmp_path) == ["kept"] and folders_of(kept) == ["file"]
    scratch.discard(path)


def test_the_end_of_the_process_removes_what_is_left_but_not_what_was_released(tmp_path):
    process = start(
        "scratch.make(); print(scratch.make()); kept = scratch.make(); scratch.release(kept); "
        "print(kept)",
        tmp_path,
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert folders_of(tmp_path) == [os.path.basename(out.split()[1])]


def test_a_forked_child_removes_nothing_of_its_parent_s(tmp_path):
    program = (
        "path = scratch.make()\nif os.fork() == 0: sys.exit()\nos.wait()\nprint(path.exists())"
    )
    assert start(program, tmp_path).communicate()[0] == "True\n"
    assert not folders_of(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_leaves_no_folder_and_ends_in_order(tmp_path, number):
    program = """
scratch.end_in_order()
with scratch.folder() as path:
    scratch.make()
    (path / "file").write_text("x")
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        print("in order", flush=True)
"""
    process = start(program, tmp_path, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    assert process.stdout.readline() == "ready\n" and len(folders_of(tmp_path)) == 2
    process.send_signal(number)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("in order\n", "", 128 + number)
    assert not folders_of(tmp_path)


def test_a_signal_that_is_ignored_or_handled_stays_so(tmp_path):
    program = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
scratch.end_in_order()
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""
    assert start(program, tmp_path).communicate()[0] == "mine\nstill here\n"


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    program = """
scratch.end_in_order()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""
    process = start(program, tmp_path)
    assert process.communicate()[0] == "" and process.returncode == -signal.SIGTERM


def test_other_threads_leave_the_process_s_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=scratch.end_in_order)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_says_which_signal_it_was():
    assert (
        str(scratch.Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
        and scratch.Stopped(signal.SIGTERM).code == 143
    )
