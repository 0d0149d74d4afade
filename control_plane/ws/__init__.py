"""Floor 4: the agents' edge: `/ws`."""
