"""Each refusal of a hostname is an event, however often its twin knocks."""

from control_plane.fleet import refusals


def apply() -> None:
    """Let no time lie between two events of one hostname."""
    refusals.EVENT_SECONDS = 0
