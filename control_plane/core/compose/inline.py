"""What Compose does not notice when a project is deployed again: these are warnings. Called by `read`.

Compose (seen with 5.6) decides by the reference to a config whether a container must be made anew, not by the config's
text: `docker compose up -d` then succeeds, and the container goes on with the old one.
"""

from collections.abc import Iterator
from typing import Any

from control_plane.core.compose.problems import format_path


def inline_warnings(root: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each config of a valid file whose text is in the file itself."""
    for name, entry in (root.get("configs") or {}).items():
        if type(entry) is dict and "content" in entry:
            yield (
                f"{format_path(('configs', name, 'content'))}: Compose keeps a running container when only this text "
                f"changes; rename the config with each change (`{name}_2`), or stop the project first."
            )
