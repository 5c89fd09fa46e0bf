"""From what is asked for to exact packages: rattler for conda, uv for Python."""
