"""Processes that the supervisor adopts: their exit codes are never lost."""

import subprocess
import sys

SCRIPT = """\
import gc, subprocess, sys
from mlflow_runner.log.output import Output
from mlflow_runner.processes.supervise import Supervisor

def adopt():
    supervisor.adopt(subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], stdout=subprocess.PIPE), codes.append)

codes = []
supervisor = Supervisor(Output(sys.argv[1], 1000, lambda: None), 1.0)
adopt()
gc.collect()
for _ in range(20):  # each makes `subprocess` reap dropped Popen objects
    subprocess.Popen(["sleep", "0.05"]).wait()
supervisor.wait_until(lambda: bool(codes), 10)
print(codes)
"""


def test_the_exit_code_of_an_adopted_process_arrives_although_others_start_meanwhile(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("[7]\n", 0), done.stderr
