"""How a cluster comes to be for tests and for trying things: see `place` for the order."""
