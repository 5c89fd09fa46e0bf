"""The runner's promise about output and reporting: nothing lost, nothing stalled, and little memory
used.
"""

import signal
import sys
import time
from pathlib import Path

from tests.bed.runs import Seen, wait_for
from tests.bed.server import use

MEMORY = """\
import glob, os, time
time.sleep(3)
runner, total = os.getppid(), 0
for status in glob.glob("/proc/[0-9]*/status"):
    try:
        text = dict(line.split(":", 1) for line in open(status))
    except (OSError, ValueError):
        continue
    pid = int(status.split("/")[2])
    if pid == runner or (int(text["PPid"]) == runner and pid != os.getpid()):
        total += int(text["VmHWM"].split()[0])
print("RUNNER_KB", total)
"""


def test_bytes_that_are_no_text_arrive_as_they_are(server, runner):
    run_id, process = runner(r"printf '\377\376caf\351 \000 \303\251\n'")
    out, _ = process.communicate(timeout=60)
    assert out.startswith(b"\xff\xfecaf\xe9 \x00 \xc3\xa9\n")
    assert Seen(run_id).log.startswith(b"\xff\xfecaf\xe9 \x00 \xc3\xa9\n")


def test_a_flood_of_output_that_is_not_read_does_not_stall_the_command(server, runner):
    """400 MB into a pipe that is never read, with room for 16 MB: the run ends, and says what was
    left out.
    """
    run_id, process = runner(
        "head -c 400000000 /dev/zero | tr '\\0' x; echo; echo the end", log_backlog_bytes=16_000_000
    )
    wait_for(lambda: Seen(run_id).status == "FINISHED")
    process.stdout.close()
    assert process.wait(30) == 0
    log = Seen(run_id).log
    assert b"the end\n" in log and b"bytes of output omitted here" in log and len(log) < 400_000_000


def test_a_long_log_is_complete_and_its_parts_end_at_line_ends(server, runner):
    run_id, process = runner("seq 1 2000000")
    process.communicate(timeout=60)
    found = Seen(run_id)
    parts = [found.artifact(path) for path in sorted(found.artifacts("logs"))]
    assert len(parts) > 1 and all(part.endswith(b"\n") for part in parts)
    assert b"".join(parts).startswith(b"".join(b"%d\n" % number for number in range(1, 2000001)))


def test_the_log_can_be_read_while_the_run_goes_on(server, runner):
    run_id, process = runner("echo early; sleep 300")
    wait_for(lambda: Seen(run_id).artifacts("logs") and Seen(run_id).log == b"early\n")
    assert Seen(run_id).status == "RUNNING"
    process.terminate()
    process.communicate(timeout=30)


def test_a_server_that_goes_away_for_a_while_loses_nothing(own_server, runner, monkeypatch):
    use(own_server.uri, monkeypatch)
    run_id, process = runner("echo before; sleep 4; echo during; sleep 20; echo after")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    own_server.stop()
    time.sleep(12)
    own_server.start()
    _out, _ = process.communicate(timeout=120)
    found = Seen(run_id)
    assert found.status == "FINISHED"
    assert found.log.startswith(b"before\nduring\nafter\n")


def test_an_end_that_falls_into_an_outage_is_told_after_it(own_server, runner, monkeypatch):
    use(own_server.uri, monkeypatch)
    run_id, process = runner("echo before; sleep 3; exit 5")
    wait_for(lambda: Seen(run_id).status == "RUNNING")
    own_server.stop()
    time.sleep(6)
    assert process.poll() is None, "the runner waits with the end"
    own_server.start()
    process.communicate(timeout=120)
    found = Seen(run_id)
    assert (process.returncode, found.status, found.cause) == (5, "FAILED", "ExitCode")


def test_an_outage_longer_than_the_limit_is_said_and_left_in_the_termination_message(
    own_server, runner, monkeypatch, tmp_path
):
    use(own_server.uri, monkeypatch)
    told = tmp_path / "termination"
    _run_id, process = runner("sleep 2; exit 5", report_timeout_s=4.0, termination_log=str(told))
    own_server.stop()
    out, _ = process.communicate(timeout=60)
    assert (
        process.returncode == 5
        and (b"\n[mlflow-compute] the run's end has not been reported to the tracking server\n")
        in out
    )
    assert '"status": "FAILED"' in told.read_text() and '"reported": false' in told.read_text()


def test_a_runner_that_is_killed_leaves_its_log_and_an_end(server, runner):
    run_id, process = runner("echo last words; sleep 300")
    wait_for(lambda: Seen(run_id).log == b"last words\n")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: Seen(run_id).status == "FAILED")
    assert Seen(run_id).cause == "RunnerLost" and Seen(run_id).log == b"last words\n"


def test_the_runner_needs_no_mlflow_and_less_than_80_mb(server, runner, tmp_path):
    """Debian's own Python has no mlflow: everything is reported with the standard library."""
    (tmp_path / "memory.py").write_text(MEMORY)
    python = next(path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists())
    run_id, process = runner(f"exec {python} memory.py", python=python)
    out, _ = process.communicate(timeout=60)
    assert Seen(run_id).status == "FINISHED"
    used_kb = int(out.split(b"RUNNER_KB ")[1].split()[0])
    assert 5_000 < used_kb < 80_000


def test_what_a_command_leaves_running_is_ended_with_it(server, runner, tmp_path):
    run_id, process = runner("(sleep 300 & echo $! > left) ; echo done")
    process.communicate(timeout=30)
    pid = int((tmp_path / "left").read_text())
    wait_for(
        lambda: (
            not Path(f"/proc/{pid}").exists()
            or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        )
    )
    assert Seen(run_id).status == "FINISHED"
