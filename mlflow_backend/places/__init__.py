"""Where runs take place: this machine, or a Kubernetes cluster."""
