"""What a Compose file asks of files beside it: the agent gets the file alone, so these are warnings.

Called by `read` for files that passed the schema. Paths that are absolute, under the home directory or
made of variables may well be on the host and are left alone.
"""

import re
from collections.abc import Iterator
from typing import Any

from control_plane.core.compose.problems import Path, format_path

_REMOTE = re.compile(r"(?i)(?:https?|git|ssh|oci|docker-image)://|git@|github\.com/|service:")
_ELSEWHERE = ("/", "~", "$", "\\")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ALONE = "the agent gets only the Compose file"


def lone_file_warnings(root: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing in a valid file that needs a file or directory beside it."""
    if "version" in root:
        yield "version: is obsolete and ignored by Compose; remove it."
    for index, entry in enumerate(root.get("include") or ()):
        paths = entry.get("path") if type(entry) is dict else entry
        yield from _missing_files(("include", index), paths)
    for name, service in (root.get("services") or {}).items():
        yield from _service_warnings(("services", name), service)
    for section in ("configs", "secrets"):
        for name, entry in (root.get(section) or {}).items():
            if type(entry) is dict:
                yield from _missing_files((section, name, "file"), entry.get("file"))


def _service_warnings(path: Path, service: dict[str, Any]) -> Iterator[str]:
    if "build" in service:
        yield from _build_warnings((*path, "build"), service["build"], has_image="image" in service)
    for key in ("env_file", "label_file"):
        if key in service:
            yield from _missing_files((*path, key), service[key])
    extends = service.get("extends")
    if type(extends) is dict:
        yield from _missing_files((*path, "extends", "file"), extends.get("file"))
    for index, volume in enumerate(service.get("volumes") or ()):
        if _relative_bind(volume):
            where = format_path((*path, "volumes", index))
            yield f"{where}: is a relative bind mount; {_ALONE}, so it will be an empty directory there."


def _build_warnings(path: Path, build: Any, *, has_image: bool) -> Iterator[str]:
    # An inline Dockerfile needs nothing beside it, unless it copies from the context.
    inline = type(build) is dict and build.get("dockerfile_inline")
    context = build.get("context", "" if inline else ".") if type(build) is dict else build
    if not context or _REMOTE.match(context) or context.startswith("$"):
        return
    advice = "push the image to a registry" if has_image else "push the image to a registry and name it with `image`"
    yield f"{format_path(path)}: needs a build context, but {_ALONE}; {advice}, or build from a Git URL."


def _missing_files(path: Path, files: Any) -> Iterator[str]:
    if type(files) is not list:
        if _is_relative(files):
            yield f"{format_path(path)}: names a relative path, but {_ALONE}; use an absolute path or inline it."
        return
    for index, entry in enumerate(files):
        needed = type(entry) is not dict or entry.get("required") not in (False, "false")
        if needed and _is_relative(entry.get("path") if type(entry) is dict else entry):
            where = format_path((*path, index))
            yield f"{where}: names a relative path, but {_ALONE}; use an absolute path or inline it."


def _is_relative(file: Any) -> bool:
    if type(file) is not str or not file or file.startswith(_ELSEWHERE):
        return False
    return not _REMOTE.match(file) and not _DRIVE.match(file)


def _relative_bind(volume: Any) -> bool:
    if type(volume) is str:
        # Compose's own rule: a source that begins with a dot is a path, any other bare word a volume.
        return volume.startswith(".") and ":" in volume
    return type(volume) is dict and volume.get("type") == "bind" and _is_relative(volume.get("source"))
