"""The reporter: brings what the supervisor left on disk to MLflow, for as long as that takes.

Three channels with a state each. `status` alone decides whether the server accepts the run; `log`
and `files` share a thread (`uploads`), and nothing that happens to them stops the run or holds its
end up.

It reads the spool and `state.json` and keeps on disk how far each channel is, so it can be killed
and started again.
"""

import os
from pathlib import Path

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.outcome import DELETED, GAVE_UP, REFUSED, Outcome
from mlflow_runner.contract.submission import Submission


def main(arguments) -> int:
    """Report the run whose Submission is in the file `arguments[0]`, next to its spool and
    state.
    """
    from mlflow_runner.contract.answers import Refused
    from mlflow_runner.report.loop import Report, say
    from mlflow_runner.report.status import Deleted
    from mlflow_runner.tracking import client

    path = Path(arguments[0])
    tracking_variables.strip(os.environ)
    client.be_impatient(os.environ)
    try:
        outcome = Report(Submission.from_json(path.read_text()), path.parent).follow()
    except Refused as error:
        say(f"the tracking server refuses this run: {error}")
        outcome = Outcome(REFUSED, message=f"{error}. {error.hint}".rstrip())
    except Deleted:
        say("the run was deleted in MLflow: nothing more is reported")
        outcome = Outcome(DELETED)
    except Exception:  # a defect; the supervisor starts another
        import traceback

        for line in traceback.format_exc().splitlines():
            say(line)
        _leave(1)
    outcome.write(os.fspath(path.parent))
    _leave(1 if outcome.kind in (REFUSED, GAVE_UP) else 0)


def _leave(code: int) -> None:
    """End without waiting for threads that wait for an artifact store; MLflow's own would hold the
    interpreter's end up.
    """
    os._exit(code)
