"""What is decided about a run before anything of it exists."""
