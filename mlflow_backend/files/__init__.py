"""The files that travel with a run, and the archive that contains them."""
