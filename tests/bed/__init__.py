"""The real things that tests run on, and short words for what tests do with them."""
