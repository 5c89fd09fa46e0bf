"""The request for one run: `backend_config`, project, entry point and parameters."""
