"""What a project's files ask for: read as the tools that own the formats read them."""
