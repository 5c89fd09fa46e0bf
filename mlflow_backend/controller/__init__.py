"""The Deployment that settles runs which no client waits for.

It does not import MLflow, to save memory.
"""
