"""The Kubernetes objects of a run: plain values in, plain dicts out."""
