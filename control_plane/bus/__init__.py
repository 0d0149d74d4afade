"""Floor 2: wake-ups. They carry ids only and may be lost; the store is the truth."""
