"""Floor 3, above fleet: what users ask for, one verb a function, one transaction each."""
