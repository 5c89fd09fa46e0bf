"""A project's environment: from the file that lists it to the value that the runner makes it from."""
