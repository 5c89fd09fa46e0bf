"""The MLflow side of a submit: the run, and what a client elsewhere needs to reach the server."""
