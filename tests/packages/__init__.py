"""A conda channel and a Python index on this machine, made of real packages, for real solvers."""
