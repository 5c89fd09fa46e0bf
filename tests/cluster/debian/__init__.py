"""A real one-node Kubernetes on a bare Debian machine with root and no image registry.

Control plane, kubelet and CoreDNS are built from their Go modules (versions
pinned in the two go.mod files); everything else is Debian's packages.
"""
