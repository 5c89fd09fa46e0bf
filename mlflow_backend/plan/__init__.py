"""What is decided about a run before anything is created."""
