"""Projects with a `docker_env`: the image that MLproject names, on this machine or in a cluster."""
