"""Compute targets: their fields, the files that define them, and which files are trusted."""
