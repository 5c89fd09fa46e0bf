"""The reporter: sends to MLflow what the supervisor leaves on disk, however long that takes.

Three channels with a state each. `status` alone decides whether the server accepts the run; `log`
and `files` share a thread (`uploads`), and no failure of theirs stops the run or delays its end.

It reads the spool and `state.json` and stores the progress of each channel on disk, so it can be
killed and restarted.
"""

import os
from typing import NoReturn, Sequence

from mlflow_runner.contract import tracking_variables
from mlflow_runner.contract.outcome import DELETED, GAVE_UP, REFUSED, Outcome
from mlflow_runner.contract.submission import Submission


def main(arguments: Sequence[str]) -> NoReturn:
    """Report the run whose Submission is in the file `arguments[0]`, in the folder of its spool and
    state. Ends the process.
    """
    from mlflow_runner.contract.answers import Refused
    from mlflow_runner.report.loop import Report, say
    from mlflow_runner.report.status import Deleted
    from mlflow_runner.tracking import client

    path = arguments[0]
    directory = os.path.dirname(path)
    tracking_variables.strip(os.environ)
    client.disable_retries(os.environ)
    try:
        with open(path) as file:
            submission = Submission.from_json(file.read())
        outcome = Report(submission, directory).follow()
    except Refused as error:
        say(f"the tracking server refuses this run: {error}")
        outcome = Outcome(REFUSED, message=f"{error}: {error.hint}." if error.hint else f"{error}.")
    except Deleted:
        say("the run was deleted in MLflow: reporting ends")
        outcome = Outcome(DELETED)
    except Exception:  # a defect; the supervisor starts another reporter
        import traceback

        for line in traceback.format_exc().splitlines():
            say(line)
        _leave(1)
    outcome.write(directory)
    _leave(1 if outcome.kind in (REFUSED, GAVE_UP) else 0)


def _leave(code: int) -> NoReturn:
    """Exit without waiting for threads that wait for an artifact store; those of MLflow's client
    would delay the interpreter's end.
    """
    os._exit(code)
