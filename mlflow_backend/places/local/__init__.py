"""A run on this machine: the same runner as in a pod, as a child process or in a container."""
