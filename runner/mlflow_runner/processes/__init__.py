"""Child processes: started, supervised and reaped as an init process does."""
