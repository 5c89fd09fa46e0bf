"""The MLflow side of a submit: the run, and the settings that a client in a pod needs."""
