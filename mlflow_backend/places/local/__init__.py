"""Runs on this machine: the same runner as in a pod, in a child process or a container."""
