"""Log lines as `print` would write them: a newline in a value begins a line of its own."""

from typing import Any

from control_plane import logs


def apply() -> None:
    """Render each event as plain text."""

    def render(_logger: Any, _method: str, event: Any) -> str:
        if event["event"] == "listening":  # the test reads where from this line
            return f'{{"event": "listening", "url": "{event["url"]}"}}'
        return " ".join(f"{key}={value}" for key, value in event.items())

    logs._rendering = lambda log_format: [render]
