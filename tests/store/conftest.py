"""Gives every test of the store a real one, on a file of its own."""

from tests.support.store import database, store

__all__ = ["database", "store"]
