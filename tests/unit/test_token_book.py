"""The book of good tokens: what it finds when, in whatever order its readings of the store come back."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from control_plane.core.access import DEFAULT_REACH
from control_plane.core.tokens import TokenKind, digest_of
from control_plane.fleet.manager import ConnectionManager
from control_plane.operations.token_book import TokenBook
from control_plane.store import tokens
from control_plane.store.store import Store
from control_plane.store.tokens import USE_NOTED, NewToken, Revocation, Rotation
from tests.support.store import database, sql, store

__all__ = ["database", "store"]  # fixtures

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class SlowReadings:
    """The store, whose answers to reads come when a test lets them: `hold()`, then `release()` the oldest of them."""

    def __init__(self, store: Store) -> None:
        self.write = store.write
        self._store = store
        self._gates: list[asyncio.Event] = []
        self._holds = False
        self._held = asyncio.Event()

    async def read(self, query: Callable[..., Any], *args: Any) -> Any:
        answer = await self._store.read(query, *args)
        if self._holds:
            self._gates.append(asyncio.Event())
            self._held.set()
            await self._gates[-1].wait()
        return answer

    async def hold(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start `work`, and return once its reading is held back."""
        self._holds = True
        self._held.clear()
        task = asyncio.create_task(work)
        await self._held.wait()
        self._holds = False
        return task

    def release(self) -> None:
        self._gates.pop(0).set()


def book_of(store: Any) -> TokenBook:
    return TokenBook(store, ConnectionManager(store))


async def add(store: Store, text: str = "ours", **fields: Any) -> int:
    new = NewToken(1, TokenKind.API, "t", digest_of(text).hex(), NOON, role="viewer", **fields)
    return await store.write(tokens.add_tokens, new)


def finds(book: TokenBook, text: str = "ours", kind: TokenKind = TokenKind.API) -> bool:
    return book.find(digest_of(text), kind) is not None


async def test_a_reading_that_comes_back_late_brings_no_revoked_token_back(store: Store) -> None:
    readings = SlowReadings(store)
    book = book_of(readings)
    token_id = await add(store)
    late = await readings.hold(book.refresh())
    await store.write(tokens.revoke_tokens, Revocation(DEFAULT_REACH, token_id, NOON))
    await book.refresh()
    assert not finds(book)
    readings.release()
    await late
    assert not finds(book)


async def test_a_reading_that_comes_back_late_brings_no_rotated_token_back(store: Store) -> None:
    readings = SlowReadings(store)
    book = book_of(readings)
    token_id = await add(store)
    late = await readings.hold(book.refresh())
    rotation = Rotation(DEFAULT_REACH, token_id, digest_of("new").hex(), NOON, NOON)
    await store.write(tokens.rotate_tokens, rotation)
    await book.refresh()
    readings.release()
    await late
    assert (finds(book), finds(book, "new")) == (False, True)


async def test_refreshes_at_once_each_know_what_was_written_before_them(store: Store) -> None:
    book = book_of(store)

    async def one(number: int) -> None:
        await add(store, f"secret-{number}")
        await book.refresh()
        assert finds(book, f"secret-{number}")

    await asyncio.gather(*(one(number) for number in range(50)))
    assert all(finds(book, f"secret-{number}") for number in range(50))


async def test_more_tokens_than_a_page_holds_are_all_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.operations.token_book.PAGE", 3)
    for number in range(7):
        await add(store, f"secret-{number}")
    book = book_of(store)
    await book.refresh()
    assert all(finds(book, f"secret-{number}") for number in range(7))


async def test_each_change_of_a_token_has_a_revision_of_its_own(store: Store) -> None:
    ids = await asyncio.gather(*(add(store, f"secret-{number}") for number in range(20)))
    await asyncio.gather(
        *(store.write(tokens.revoke_tokens, Revocation(DEFAULT_REACH, token_id, NOON)) for token_id in ids[:10])
    )
    revisions = [token.revision for token in await store.read(tokens.list_changed_tokens, 0, 100)]
    assert revisions == sorted(set(revisions))
    assert len(revisions) == 20


async def test_a_token_of_another_kind_opens_nothing(store: Store) -> None:
    book = book_of(store)
    await add(store)
    await book.refresh()
    assert not finds(book, kind=TokenKind.AGENT)
    assert not finds(book, kind=TokenKind.ENROLLMENT)


async def test_a_token_is_found_up_to_its_end_and_not_from_then_on(store: Store) -> None:
    book = book_of(store)
    await add(store, expires_at=NOON + timedelta(hours=1))
    await book.refresh()
    with time_machine.travel(NOON + timedelta(minutes=59, seconds=59), tick=False):
        assert finds(book)
    with time_machine.travel(NOON + timedelta(hours=1), tick=False):
        assert not finds(book)


async def test_a_rotated_token_is_found_until_its_overlap_is_over_and_the_new_one_at_once(store: Store) -> None:
    book = book_of(store)
    token_id = await add(store, "old")
    until = NOON + timedelta(hours=1)
    await store.write(tokens.rotate_tokens, Rotation(DEFAULT_REACH, token_id, digest_of("new").hex(), until, NOON))
    await book.refresh()
    with time_machine.travel(until - timedelta(seconds=1), tick=False):
        assert (finds(book, "old"), finds(book, "new")) == (True, True)
    with time_machine.travel(until, tick=False):
        assert (finds(book, "old"), finds(book, "new")) == (False, True)


async def test_a_second_rotation_ends_the_token_before_the_last_at_once(store: Store) -> None:
    book = book_of(store)
    token_id = await add(store, "first")
    until = datetime.now(UTC) + timedelta(hours=1)
    for secret in ("second", "third"):
        rotation = Rotation(DEFAULT_REACH, token_id, digest_of(secret).hex(), until, NOON)
        await store.write(tokens.rotate_tokens, rotation)
    await book.refresh()
    assert [finds(book, secret) for secret in ("first", "second", "third")] == [False, True, True]


async def test_the_use_of_a_token_is_written_at_most_once_a_minute_also_after_a_restart(
    store: Store, database: Any
) -> None:
    await add(store)
    book = book_of(store)
    await book.refresh()

    async def used_at(book: TokenBook, moment: datetime) -> list[Any]:
        with time_machine.travel(moment, tick=False):
            assert finds(book)
        await book.write_uses()
        return sql(database, "SELECT last_used_at FROM token")

    assert await used_at(book, NOON) == ["2026-01-02 12:00:00.000000+00:00"]
    assert await used_at(book, NOON + USE_NOTED / 2) == ["2026-01-02 12:00:00.000000+00:00"]
    restarted = book_of(store)
    await restarted.refresh()
    assert await used_at(restarted, NOON + USE_NOTED / 2) == ["2026-01-02 12:00:00.000000+00:00"]
    assert await used_at(restarted, NOON + USE_NOTED) == ["2026-01-02 12:01:00.000000+00:00"]
