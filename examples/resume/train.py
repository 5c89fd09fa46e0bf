"""A training that goes on where an earlier pod of the same run stopped.

Before a pod is stopped it gets SIGTERM and has the target's `grace_period` to end. What it saves as
an artifact of its run by then, the next pod (MLFLOW_COMPUTE_ATTEMPT 2, 3, ...) finds there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import mlflow

CHECKPOINT = "checkpoint/state.json"


def load() -> dict:
    """The state that the pod before this one left, or the beginning."""
    if int(os.environ.get("MLFLOW_COMPUTE_ATTEMPT", "1")) > 1:
        saved = [
            item.path
            for item in mlflow.MlflowClient().list_artifacts(
                os.environ["MLFLOW_RUN_ID"], "checkpoint"
            )
        ]
        if CHECKPOINT in saved:
            path = mlflow.artifacts.download_artifacts(
                run_id=os.environ["MLFLOW_RUN_ID"], artifact_path=CHECKPOINT
            )
            return json.loads(Path(path).read_text())
    return {"step": 0, "loss": 1.0}


def main(steps: int) -> None:
    state = load()
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    print(f"attempt {os.environ.get('MLFLOW_COMPUTE_ATTEMPT', '1')} begins at step {state['step']}")
    with mlflow.start_run():
        mlflow.log_param("optimizer", "sgd")  # logged again with the same value: no harm
        while state["step"] < steps and not stop:
            time.sleep(0.2)
            state = {"step": state["step"] + 1, "loss": state["loss"] * 0.95}
            mlflow.log_metric("loss", state["loss"], step=state["step"])
        if stop:
            mlflow.log_dict(state, CHECKPOINT)
    if stop:
        print(f"stopped at step {state['step']}, saved")
        sys.exit(143)
    print(f"finished at step {state['step']}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
