"""How runs end, whatever place they are in: the record of a run, its end, and the runs below it."""
