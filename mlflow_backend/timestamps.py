"""Times as APIs write them."""

from datetime import datetime


def seconds(stamp: str) -> float:
    """A time of RFC 3339 as seconds since the epoch. Raises ValueError for another text."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
