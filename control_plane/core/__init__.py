"""Floor 1: pure rules of the house. No I/O; imports nothing else of ours."""
