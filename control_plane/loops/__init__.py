"""Floor 4: work that repeats by the clock, supervised."""
