"""What the tables' columns and indexes are made of, in both dialects. For `models`."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Index, Text, TypeDecorator
from sqlalchemy.types import DateTime, TypeEngine


class UTCDateTime(TypeDecorator[datetime]):
    """An aware datetime. SQLite, which has no time zones, keeps it as text in UTC that sorts as time does.

    Not SQLAlchemy's own text form: writing that took a tenth of the writer's time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return what the dialect stores."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Return what makes parameters of aware datetimes; a naive one is a mistake in this program."""
        return _utc_text if dialect.name == "sqlite" else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give an aware datetime back."""
        return datetime.fromisoformat(value) if isinstance(value, str) else value


@lru_cache(maxsize=256)  # a commit has few times and writes each into many columns
def _utc_text(value: datetime | None) -> str | None:
    if value is None:
        return None
    return (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat(" ", "microseconds")


def index(name: str, *columns: str, where: Any = None, unique: bool = False) -> Index:
    """Return an index on columns, of only the rows that `where` is true of if it is given."""
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)
