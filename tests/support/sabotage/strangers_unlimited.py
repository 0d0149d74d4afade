"""A server on which one address may leave as many connections waiting as there are descriptors."""

from control_plane.core.strangers import Strangers


def apply() -> None:
    """End none."""
    Strangers._make_room = lambda *_: None  # type: ignore[method-assign]
