"""What one run asks for: its `backend_config`, its project and entry point, its parameters."""
