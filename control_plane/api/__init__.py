"""Floor 4: the REST edge: parse, one call of an operation, answer."""
