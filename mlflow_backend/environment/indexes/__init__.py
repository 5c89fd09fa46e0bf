"""Package indexes and channels: which the user has set, and where each login may go."""
