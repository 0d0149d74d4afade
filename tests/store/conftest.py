from tests.support.store import database, store

__all__ = ["database", "store"]
