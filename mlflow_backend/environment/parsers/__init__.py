"""Parsers of the files that list packages: each is read as its own tool reads it."""
