"""Lock files: the exact packages, in formats that other tools read."""
