"""Who asks, in tests that call operations or the store themselves."""

from control_plane.core.access import DEFAULT_REACH, Actor, Role

ROOT = Actor("tests", Role.ROOT, DEFAULT_REACH)
REACH = DEFAULT_REACH
