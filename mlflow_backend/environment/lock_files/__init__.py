"""Locks as files: exactly what is installed, in formats that other tools read."""
