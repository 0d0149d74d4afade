"""Bulk: one statement for many rows, compiled once; and Lookup, a small one that is asked. For changes of this floor.

SQLAlchemy prepares every row of an `executemany` anew, by name and by type, which took the writer longer than
SQLite needed for the rows. Here the order and the conversions are settled when the statement is first used.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update

Statement = Insert | Update | Delete
Row = Mapping[str, Any]
_Slot = tuple[str, Callable[[Any], Any] | None]


class Bulk:
    """An INSERT, UPDATE or DELETE whose rows are dicts with the same keys every time."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._prepared: dict[str, tuple[str, list[_Slot], dict[str, Any], bool]] = {}

    def run(self, db: Connection, rows: Sequence[Row]) -> int:
        """Execute it for every row, of which there is at least one; returns how many rows of the table it touched."""
        prepared = self._prepared.get(db.dialect.name)
        if prepared is None:
            prepared = self._prepared[db.dialect.name] = self._prepare(db.dialect, rows[0])
        sql, slots, constants, positional = prepared
        columns = [
            repeat(constants[name]) if name in constants else _column(rows, name, convert) for name, convert in slots
        ]
        values: Any = zip(*columns, strict=False)
        if not positional:
            values = [dict(zip([name for name, _ in slots], each, strict=True)) for each in values]
        # Past SQLAlchemy's execution, whose bookkeeping took longer than SQLite for the rows of a usual batch.
        cursor = db.connection.cursor()
        try:
            cursor.executemany(sql, values)
            return int(cursor.rowcount)
        finally:
            cursor.close()

    def _prepare(self, dialect: Dialect, row: Row) -> tuple[str, list[_Slot], dict[str, Any], bool]:
        columns = list(row) if isinstance(self._statement, Insert) else None
        compiled = self._statement.compile(dialect=dialect, column_keys=columns)
        names = list(compiled.positiontup or compiled.params)
        slots: list[_Slot] = []
        for name in names:
            kind = compiled.binds[name].type.dialect_impl(dialect)
            slots.append((name, kind.bind_processor(dialect)))
        constants = {name: value for name, value in compiled.params.items() if name in names and name not in row}
        return str(compiled), slots, constants, compiled.positional


def _column(rows: Sequence[Row], name: str, convert: Callable[[Any], Any] | None) -> Iterable[Any]:
    values = map(itemgetter(name), rows)
    return values if convert is None else map(convert, values)


class Lookup:
    """A SELECT that every commit asks. Its values are given and returned as the driver has them: numbers and text."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._prepared: dict[str, tuple[str, list[str], dict[str, Any], bool]] = {}

    def first(self, db: Connection, **values: Any) -> Any:
        """Return the first row, None if there is none."""
        prepared = self._prepared.get(db.dialect.name)
        if prepared is None:
            compiled = self._statement.compile(dialect=db.dialect)
            names = list(compiled.positiontup or compiled.params)
            prepared = self._prepared[db.dialect.name] = (str(compiled), names, compiled.params, compiled.positional)
        sql, names, constants, positional = prepared
        given = {**constants, **values}
        cursor = db.connection.cursor()
        try:
            cursor.execute(sql, tuple([given[name] for name in names]) if positional else given)
            return cursor.fetchone()
        finally:
            cursor.close()
