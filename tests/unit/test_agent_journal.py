"""The agent's journal and outbox: what is kept, in which order it leaves, and what is forgotten when."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from agent.journal import KEEP_ANSWERS, KEEP_SECONDS, Journal
from agent.outbox import MAX_PLAIN_ANSWERS, Outbox


def answer(job_id: str) -> str:
    return json.dumps({"job_id": job_id, "status": "COMPLETED", "logs": ""})


def test_answers_survive_the_process_until_and_after_delivery(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.save("j1", answer("j1"))
    first.save("../j2", answer("../j2"))
    second = Journal(tmp_path)
    assert second.unsent_job_ids() == ["j1", "../j2"]
    second.mark_delivered("j1")
    third = Journal(tmp_path)
    assert third.unsent_job_ids() == ["../j2"]
    assert third.has("j1")
    assert third.read("j1") == answer("j1")
    assert not third.has("j3")
    assert third.read("j3") is None
    assert sorted(os.listdir(tmp_path)) == ["sent", "unsent"]


def test_an_answer_is_kept_in_memory_when_the_disk_refuses_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    shutil.rmtree(tmp_path / "unsent")
    journal.save("j1", answer("j1"))
    assert journal.has("j1")
    assert journal.read("j1") == answer("j1")
    journal.mark_delivered("j1")
    assert journal.read("j1") == answer("j1")


def test_delivered_answers_are_bounded_by_age_and_number_and_unsent_ones_are_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "unsent").joinpath("old.json").write_text(answer("unsent"))
    for number in range(KEEP_ANSWERS + 5):
        (tmp_path / "sent" / f"{number:04}.json").write_text("{}")
        os.utime(tmp_path / "sent" / f"{number:04}.json", (time.time() - number, time.time() - number))
    too_old = time.time() - KEEP_SECONDS - 10
    os.utime(tmp_path / "sent" / "0000.json", (too_old, too_old))
    os.utime(tmp_path / "unsent" / "old.json", (too_old, too_old))
    for _ in range(100):
        journal.mark_delivered("any")
    kept = {path.name for path in (tmp_path / "sent").iterdir()}
    assert len(kept) == KEEP_ANSWERS
    assert "0000.json" not in kept
    assert f"{KEEP_ANSWERS + 4:04}.json" not in kept
    assert journal.unsent_job_ids() == ["unsent"]


def test_a_damaged_file_costs_only_itself(tmp_path: Path) -> None:
    Journal(tmp_path).save("j1", answer("j1"))
    (tmp_path / "unsent" / "damaged.json").write_text('{"job_')
    (tmp_path / "unsent" / "list.json").write_text("[]")
    assert Journal(tmp_path).unsent_job_ids() == ["j1"]
    assert Journal(tmp_path).unsent_job_ids() == ["j1"]
    assert len(os.listdir(tmp_path / "unsent")) == 1


async def taken(outbox: Outbox, count: int) -> list[str]:
    return [(await asyncio.wait_for(outbox.next(), 5)).text for _ in range(count)]


async def test_unsent_answers_go_first_and_stay_until_delivered(tmp_path: Path) -> None:
    Journal(tmp_path).save("old", answer("old"))
    journal = Journal(tmp_path)
    outbox = Outbox(journal)
    outbox.answer("ack")
    journal.save("new", answer("new"))
    outbox.final("new")
    outbox.start_connection()
    assert await taken(outbox, 3) == [answer("old"), answer("new"), "ack"]
    outbox.start_connection()
    assert await taken(outbox, 2) == [answer("old"), answer("new")]
    outbox.delivered("old")
    outbox.delivered("new")
    await asyncio.wait_for(outbox.settled(), 5)
    assert Journal(tmp_path).unsent_job_ids() == []


async def test_progress_is_asked_for_when_it_is_sent_and_dropped_once_the_final_answer_is_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    outbox = Outbox(journal)
    said = ["one"]
    outbox.progress("j1", lambda: " ".join(said))
    outbox.progress("j1", lambda: " ".join(said))
    outbox.progress("nothing to say", lambda: None)
    said.append("two")
    assert await taken(outbox, 1) == ["one two"]
    outbox.progress("j1", lambda: "late")
    journal.save("j1", answer("j1"))
    outbox.final("j1")
    assert await taken(outbox, 1) == [answer("j1")]


async def test_a_frame_that_the_socket_did_not_take_comes_first_again(tmp_path: Path) -> None:
    outbox = Outbox(Journal(tmp_path))
    outbox.answer("first")
    outbox.answer("second")
    outbox.put_back(await outbox.next())
    assert await taken(outbox, 2) == ["first", "second"]


async def test_acknowledgements_are_bounded_while_nobody_takes_them(tmp_path: Path) -> None:
    outbox = Outbox(Journal(tmp_path))
    for number in range(MAX_PLAIN_ANSWERS + 2):
        outbox.answer(str(number))
    assert await taken(outbox, 1) == ["2"]


async def test_an_answer_whose_file_is_gone_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    outbox = Outbox(journal)
    outbox.final("gone")
    outbox.answer("next")
    assert await taken(outbox, 1) == ["next"]
    await asyncio.wait_for(outbox.settled(), 5)


@pytest.mark.parametrize("job_id", ["a/b", "..", "x" * 200, "\ud800", "\0"])
def test_any_job_id_makes_a_usable_file_name(tmp_path: Path, job_id: str) -> None:
    journal = Journal(tmp_path)
    journal.save(job_id, "{}")
    assert journal.has(job_id)
    assert [path.suffix for path in (tmp_path / "unsent").iterdir()] == [".json"]


def test_answers_to_health_checks_are_kept_in_memory_and_displace_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save("j1", answer("j1"))
    journal.mark_delivered("j1")
    for number in range(2 * KEEP_ANSWERS):
        journal.save_fleeting(f"health-{number}", answer("h"))
        journal.mark_delivered(f"health-{number}")
    assert journal.read(f"health-{2 * KEEP_ANSWERS - 1}") == answer("h")
    assert not journal.has("health-0")
    assert journal.has("j1")
    assert len(list(tmp_path.glob("*/*.json"))) == 1
