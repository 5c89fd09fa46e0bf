"""MLflow Projects backend `compute`: an unchanged project, here or as a Kubernetes Job."""
