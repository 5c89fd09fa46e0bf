"""A project's environment: from the file that lists it to a lock, and the key of what the lock
installs.
"""
