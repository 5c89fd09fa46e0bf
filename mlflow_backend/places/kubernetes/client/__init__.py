"""The Kubernetes API: logins, calls, lists and watches. Nothing here knows MLflow."""
