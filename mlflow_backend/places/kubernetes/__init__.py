"""A run as a Kubernetes Job: made (`manifest`), submitted (`api`), followed (`observe`, `run`),
explained (`diagnose`, `settle`).
"""
