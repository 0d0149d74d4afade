"""Floor 2: the records. The only code that speaks SQL."""
