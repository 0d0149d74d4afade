"""A control plane that takes an error of the disk for a database that is away for a moment."""

from control_plane.core.errors import StoreUnavailableError
from control_plane.store import database, writer


def apply() -> None:
    """Have such an error be answered 503, and tried again."""
    translate = database.translate_error

    def hopeful(error: Exception) -> Exception:
        told = translate(error)
        return StoreUnavailableError("try again") if isinstance(told, database.StorageBrokenError) else told

    for module in (database, writer):
        module.translate_error = hopeful  # type: ignore[attr-defined]
