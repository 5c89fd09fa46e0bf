"""The Deployment that settles runs without a waiting client.

It does not import MLflow, to save memory.
"""
