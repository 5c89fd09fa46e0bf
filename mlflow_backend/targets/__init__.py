"""Compute targets: what users write, where it is looked for, and who is trusted to write it."""
