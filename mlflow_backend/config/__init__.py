"""Configuration: what a run asks for (`backend_config`) and what targets exist (`targets_file`)."""
