"""From requested packages to exact ones: rattler for conda, uv for Python."""
