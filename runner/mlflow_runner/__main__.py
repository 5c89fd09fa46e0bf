"""Entry point of the zip that travels with each run: `python3 runner.pyz run|report|fetch ...`."""

import signal
import sys
import time
from typing import List


def main(arguments: List[str]) -> int:
    """Run the mode that the first argument names; the exit code. Each mode imports only its own
    modules.
    """
    started_s = time.monotonic()
    mode = arguments[0] if arguments else ""
    if mode == "run":
        # until the supervisor handles them: PID 1 would lose them
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        from mlflow_runner.run.start import main as run

        return run(arguments[1:], started_s)
    if mode == "report":
        from mlflow_runner.report import main as report

        return report(arguments[1:])
    if mode == "fetch":
        from mlflow_runner.fetch import main as fetch

        return fetch(arguments[1:])
    if mode == "conda-install":
        from mlflow_runner.environment.conda_install import main as conda_install

        return conda_install(arguments[1:])
    if mode == "clean":
        from mlflow_runner.environment.clean import main as clean

        return clean(arguments[1:])
    print("usage: runner.pyz run SUBMISSION_FILE [SHA256 [SECRETS_SHA256]]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
