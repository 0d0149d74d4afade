"""Floor 3: the live agents and what is sent to them."""
