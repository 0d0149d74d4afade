"""Who may stay when an address leaves too many connections waiting: those that were just opened, up to a bound."""

from control_plane.core.strangers import BURST, PATIENCE_SECONDS, Strangers

HERE = "192.0.2.1"


class Connection:
    """One that is told to go; `busy` ones are not ended."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy
        self.ended = False

    def turn_away(self) -> bool:
        self.ended = not self.busy
        return self.ended


class Table(Strangers):
    """A table with a clock that a test sets."""

    def __init__(self, max_waiting: int) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, bool]] = []
        super().__init__(max_waiting, lambda *told: self.told.append(told), clock=lambda: self.now)

    def arrive(self, count: int, address: str = HERE, *, busy: bool = False) -> list[Connection]:
        connections = [Connection(busy=busy) for _ in range(count)]
        for connection in connections:
            self.wait(address, connection)
        return connections


def ended(connections: list[Connection]) -> list[bool]:
    return [connection.ended for connection in connections]


def test_a_crowd_that_comes_at_once_may_stay() -> None:
    table = Table(10)
    assert not any(ended(table.arrive(10 * BURST)))


def test_beyond_the_burst_the_newest_are_ended_at_once() -> None:
    table = Table(10)
    table.arrive(10 * BURST)
    assert all(ended(table.arrive(5)))
    assert table.count(HERE) == 10 * BURST
    assert table.told == [(HERE, True)] + [(HERE, False)] * 4


def test_those_that_have_waited_long_make_room_the_longest_first() -> None:
    table = Table(3)
    old = table.arrive(2)
    table.now += 1
    younger = table.arrive(2)
    table.now += PATIENCE_SECONDS - 1
    new = table.arrive(1)
    assert (ended(old), ended(younger), ended(new)) == ([True, False], [False, False], [False])
    table.now += 1
    table.arrive(2)
    assert (ended(old), ended(younger)) == ([True, True], [True, False])


def test_within_the_limit_nobody_is_ended_however_long_it_waits() -> None:
    table = Table(3)
    old = table.arrive(2)
    table.now += 1000
    assert not any(ended(old + table.arrive(1)))


def test_those_that_left_make_room() -> None:
    table = Table(1)
    for _ in range(100):
        [connection] = table.arrive(1)
        table.now += PATIENCE_SECONDS
        table.leave(HERE, connection)
        assert not connection.ended
    assert table.count(HERE) == 0
    table.leave(HERE, connection)


def test_one_that_speaks_again_waits_from_then_on() -> None:
    table = Table(2)
    first, second = table.arrive(2)
    table.now += 1
    table.leave(HERE, first)
    table.wait(HERE, first)
    table.now += PATIENCE_SECONDS - 1
    table.arrive(1)
    assert (first.ended, second.ended) == (False, True)


def test_one_whose_handshake_waits_for_its_turn_is_passed_over() -> None:
    table = Table(2)
    busy, idle = table.arrive(1, busy=True), table.arrive(1)
    table.now += PATIENCE_SECONDS
    table.arrive(1)
    assert (ended(busy), ended(idle)) == ([False], [True])


def test_another_address_is_not_touched_and_a_network_of_ipv6_is_one() -> None:
    table = Table(1)
    here, there = table.arrive(1, "2001:db8::1"), table.arrive(1, "2001:db8:0:1::1")
    table.now += PATIENCE_SECONDS
    table.arrive(1, "2001:db8::2")
    assert (ended(here), ended(there)) == ([True], [False])


def test_an_address_is_told_of_again_once_it_had_none() -> None:
    table = Table(1)
    for _ in range(2):
        connections = table.arrive(1)
        table.now += PATIENCE_SECONDS
        connections += table.arrive(1)
        for connection in connections:
            table.leave(HERE, connection)
    assert table.told == [(HERE, True), (HERE, True)]
