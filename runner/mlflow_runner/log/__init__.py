"""What a run prints: kept on disk, and shown as it comes."""
