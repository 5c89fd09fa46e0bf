"""What a run prints: spooled on disk, and copied to standard output."""
