"""Logging: one event a line on stderr, JSON or for the console, ours and the libraries' through the same chain.

Set up once by `serve.main`; everybody else calls `structlog.get_logger()`. Tokens never get through, and no text
from outside can forge a line of its own. Libraries stay at INFO or above even when we are at DEBUG, because what
they log below it is what they read: websockets writes out headers with tokens, and frames with Compose files.
"""

import logging
import sys
from typing import Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

_SECRET_KEYS = frozenset({"agent_secret_token", "api_token", "authorization", "password", "secret", "token"})
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""C0 and C1; Unicode's line ends, and what turns the direction of text and so shows another line than is there."""
_SAID_ALREADY = frozenset(
    {"Application startup failed. Exiting.", "Context impl %s.", "Will assume %s DDL."}  # uvicorn, alembic
)
"""What libraries say at every start, or after one that failed for a reason already told."""


def configure_logging(log_format: Literal["console", "json"], level: str) -> None:
    """Send all log events at `level` (a name such as INFO) and above to stderr in `log_format`."""
    chosen = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(chosen),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(log_format)],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(chosen, logging.INFO), force=True)
    logging.getLogger("control_plane").setLevel(chosen)
    # At INFO uvicorn tells of every connection, thousands a second when a fleet returns.
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.INFO if chosen <= logging.DEBUG else max(chosen, logging.WARNING))
    for chatty in (uvicorn_log, logging.getLogger("alembic.runtime.migration")):
        chatty.addFilter(_is_worth_saying)


def _rendering(log_format: Literal["console", "json"]) -> list[Processor]:
    if log_format == "json":
        # JSON in ASCII escapes every control character by itself.
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True)]
    colors = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return [structlog.processors.format_exc_info, _one_line, renderer]


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return record.msg not in _SAID_ALREADY


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "[redacted]"
    # Uvicorn adds its message once more, with terminal colours.
    event.pop("color_message", None)
    return event


def _one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters: a name from outside must neither end a line nor drive a terminal.

    A traceback keeps its lines, each behind a bar that no event begins with.
    """
    traceback = event.pop("exception", None)
    cleaned = {key: value.translate(_ESCAPES) if isinstance(value, str) else value for key, value in event.items()}
    if isinstance(traceback, str):
        cleaned["exception"] = "\n".join(f"  | {line.translate(_ESCAPES)}" for line in traceback.split("\n"))
    return cleaned
