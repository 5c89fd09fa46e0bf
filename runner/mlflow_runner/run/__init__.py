"""One run, from its first instruction to its end."""
