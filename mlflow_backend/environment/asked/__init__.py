"""What the files of a project request: each is read as its own tool reads it."""
