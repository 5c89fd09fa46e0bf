"""What settles runs when nobody waits for them: a Deployment in the cluster. It imports no MLflow, for its memory's sake."""
