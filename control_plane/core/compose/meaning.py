"""What a Compose file means beyond its form: each service can start, and what it refers to is there.

Called by `read` for files that passed the schema. Refuses only what Compose itself refuses for every
host: with `include`, or under a profile, what is not here may still be somewhere.
"""

import re
from collections.abc import Iterator
from typing import Any

from control_plane.core.compose.document import Document
from control_plane.core.compose.interpolation import is_interpolated
from control_plane.core.compose.problems import Path, problem, shown
from control_plane.core.compose.values import SERVICE_CHECKS, bad_values, port
from control_plane.core.errors import FieldProblem

_SOURCES = ("image", "build", "extends", "provider")
_NAMED_VOLUME = re.compile(r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.-]+):")
_BUILT_IN_NETWORK = "default"

Found = tuple[Path, str]


def meaning_problems(document: Document) -> list[FieldProblem]:
    """Return what Compose would refuse in a file that passed the schema."""
    root = document.root
    services = root.get("services") or {}
    found: list[Found] = []
    for name, service in services.items():
        path: Path = ("services", name)
        found += _source(path, service)
        found += bad_values(path, service, SERVICE_CHECKS)
        found += _ports_and_volumes(path, service)
        if not root.get("include") and not service.get("profiles"):
            found += _references(path, service, root)
    found += _contents(root)
    if not found and (cycle := _cycle(services)):
        found.append((("services", cycle[0], "depends_on"), f"goes in a circle: {_arrow(cycle)}"))
    return [problem(path, reason, document.position(path)) for path, reason in found]


def _source(path: Path, service: dict[str, Any]) -> Iterator[Found]:
    if not any(service.get(key) or (key == "build" and key in service) for key in _SOURCES):
        yield path, "has neither `image` nor `build`: add an image"
    if "network_mode" in service and service.get("networks"):
        yield (*path, "networks"), "cannot be used together with `network_mode`: remove one"


def _ports_and_volumes(path: Path, service: dict[str, Any]) -> Iterator[Found]:
    for index, entry in enumerate(service.get("ports") or ()):
        if type(entry) is dict and is_interpolated(entry.get("target")):
            continue
        if not is_interpolated(entry) and (reason := port(entry)):
            yield (*path, "ports", index), reason
    for index, volume in enumerate(service.get("volumes") or ()):
        if volume == "" or (type(volume) is dict and not volume.get("target")):
            yield (*path, "volumes", index), "lacks the path inside of the container"


def _references(path: Path, service: dict[str, Any], root: dict[str, Any]) -> Iterator[Found]:
    services = root.get("services") or {}
    for key in ("networks", "models"):
        yield from _missing((*path, key), service.get(key), root.get(key), key[:-1])
    for key in ("secrets", "configs"):
        yield from _missing((*path, key), service.get(key), root.get(key), key[:-1])
    yield from _missing((*path, "depends_on"), service.get("depends_on"), services, "service")
    yield from _volumes((*path, "volumes"), service.get("volumes"), root.get("volumes") or {})
    mode = service.get("network_mode")
    if type(mode) is str and mode.startswith("service:") and not is_interpolated(mode):
        yield from _undefined((*path, "network_mode"), mode.removeprefix("service:"), services, "service")
    extends = service.get("extends")
    if type(extends) is dict and not extends.get("file"):
        yield from _undefined((*path, "extends"), extends.get("service"), services, "service")
    elif type(extends) is str:
        yield from _undefined((*path, "extends"), extends, services, "service")


def _missing(path: Path, used: Any, defined: Any, noun: str) -> Iterator[Found]:
    """Yield what a list or mapping of names uses and `defined` has not."""
    if not used:
        return
    defined = defined or {}
    entries = enumerate(used) if type(used) is list else ((name, name) for name in used)
    for key, entry in entries:
        name = entry.get("source") if type(entry) is dict else entry
        if noun != "network" or name != _BUILT_IN_NETWORK:
            yield from _undefined((*path, key), name, defined, noun)


def _undefined(path: Path, name: Any, defined: dict[str, Any], noun: str) -> Iterator[Found]:
    if type(name) is not str or name in defined or is_interpolated(name):
        return
    section = f"{noun}s"
    yield path, f"names the {noun} `{shown(name)}`, which is not there: add it under `{section}`"


def _volumes(path: Path, volumes: Any, defined: dict[str, Any]) -> Iterator[Found]:
    for index, volume in enumerate(volumes or ()):
        name = None
        if type(volume) is dict:
            name = volume.get("source") if volume.get("type") == "volume" else None
        elif not is_interpolated(volume) and (match := _NAMED_VOLUME.match(volume)):
            name = match["name"]
        if name:
            yield from _undefined((*path, index), name, defined, "volume")


def _contents(root: dict[str, Any]) -> Iterator[Found]:
    """Yield the secrets and configs that have no content, or several."""
    for section, keys in (
        ("secrets", ("file", "environment")),
        ("configs", ("file", "environment", "content")),
    ):
        for name, entry in (root.get(section) or {}).items():
            if entry.get("external") or entry.get("driver"):
                continue
            given = sum(key in entry for key in keys)
            choices = ", ".join(f"`{key}`" for key in keys)
            if given != 1:
                reason = "has several of" if given else "has no content: give it one of"
                yield (section, name), f"{reason} {choices}{': keep one' if given else ''}"


def _cycle(services: dict[str, Any]) -> list[str]:
    """Return services that depend on each other in a circle, or an empty list. Does not recurse."""
    done: set[str] = set()
    for start in services:
        trail: dict[str, Iterator[str]] = {}
        current: str | None = start
        while current is not None:
            if current not in trail and current not in done:
                trail[current] = iter((services.get(current) or {}).get("depends_on") or ())
            following = next((name for name in trail.get(current, iter(())) if name not in done), None)
            if following in trail:
                names = list(trail)
                return [*names[names.index(following) :], following]
            if following is None:
                done.add(current)
                trail.pop(current, None)
                following = next(reversed(trail), None)
            current = following
    return []


def _arrow(cycle: list[str]) -> str:
    names = [shown(name) for name in cycle]
    return " → ".join(names if len(names) <= 6 else [*names[:5], "…", names[-1]])
