"""Which files travel with a run, and the archive they travel in."""
