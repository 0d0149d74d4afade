"""Final answers on disk: one small file a job, `unsent/` until delivered and `sent/` after.

The runner saves here before an answer goes anywhere, the outbox reads from here. So an answer survives the
agent's death until the control plane has it, and a command sent again is answered without being run again.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

KEEP_ANSWERS = 1000
KEEP_SECONDS = 7 * 24 * 3600
"""How many delivered answers, and for how long: well over the 24 h that a queued job may wait."""

KEEP_FLEETING = 20
"""Answers to health checks in memory, of which at most a few are ever under way."""

PRUNE_EVERY = 100
"""Deliveries between two prunings, so that a delivery stays one rename."""

log = logging.getLogger(__name__)


class Journal:
    """The answers under one directory. Calls block for a disk write at most; one process at a time uses it."""

    def __init__(self, directory: Path) -> None:
        """Make what is missing under `directory` and prune what is old. Raises OSError."""
        self._unsent = directory / "unsent"
        self._sent = directory / "sent"
        for each in (self._unsent, self._sent):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._not_on_disk: dict[str, str] = {}
        self._fleeting: dict[str, str] = {}
        self._delivered_since_prune = 0
        for leftover in directory.glob("*/.*.tmp"):
            leftover.unlink(missing_ok=True)
        self._prune()

    def unsent_job_ids(self) -> list[str]:
        """Return the jobs whose answers are not known to be delivered, oldest first."""
        found = []
        for path in sorted(self._unsent.iterdir(), key=lambda each: each.stat().st_mtime_ns):
            try:
                found.append(str(json.loads(path.read_text("utf-8"))["job_id"]))
            except (ValueError, LookupError, TypeError):
                log.warning("An answer kept in %s cannot be read and is left out.", path)
                path.rename(path.with_name(f".{path.name}.tmp"))
        return found

    def has(self, job_id: str) -> bool:
        """Whether the job's final answer is known."""
        return (
            job_id in self._fleeting
            or job_id in self._not_on_disk
            or any(path.exists() for path in self._paths(job_id))
        )

    def read(self, job_id: str) -> str | None:
        """Return the final answer's JSON text, or None if it is not known (any more)."""
        for kept in (self._fleeting, self._not_on_disk):
            if job_id in kept:
                return kept[job_id]
        for path in self._paths(job_id):
            with contextlib.suppress(FileNotFoundError):
                return path.read_text("utf-8")
        return None

    def save(self, job_id: str, answer: str) -> None:
        """Keep a final answer, synced to disk. If the disk refuses, it is kept in memory and that is logged."""
        try:
            write_synced(self._unsent / _file_name(job_id), answer)
        except OSError as error:
            log.error(  # noqa: TRY400 - the reason is the disk's, a traceback adds nothing
                "The answer of job %s cannot be written to %s (%s): it is lost if the agent stops before it is sent; "
                "make room there.",
                job_id,
                self._unsent,
                error.strerror,
            )
            self._not_on_disk[job_id] = answer

    def save_fleeting(self, job_id: str, answer: str) -> None:
        """Keep the answer to a question that may be asked anew without harm: in memory, and the last few only.

        Asked every minute, such questions would soon take the place of the answers that must be kept.
        """
        self._fleeting[job_id] = answer
        if len(self._fleeting) > KEEP_FLEETING:
            del self._fleeting[next(iter(self._fleeting))]

    def mark_delivered(self, job_id: str) -> None:
        """Note that the control plane has the answer. Known or not, twice or not: never raises."""
        if job_id in self._fleeting:
            return
        name = _file_name(job_id)
        with contextlib.suppress(OSError):
            (self._unsent / name).rename(self._sent / name)
        self._delivered_since_prune += 1
        if self._delivered_since_prune >= PRUNE_EVERY:
            self._prune()

    def _prune(self) -> None:
        self._delivered_since_prune = 0
        newest_first = sorted(((entry.stat().st_mtime, entry.path) for entry in os.scandir(self._sent)), reverse=True)
        oldest_kept = time.time() - KEEP_SECONDS
        for place, (modified_at, path) in enumerate(newest_first):
            if place >= KEEP_ANSWERS or modified_at < oldest_kept:
                Path(path).unlink(missing_ok=True)
        for job_id in list(self._not_on_disk)[:-KEEP_ANSWERS]:
            del self._not_on_disk[job_id]

    def _paths(self, job_id: str) -> tuple[Path, Path]:
        name = _file_name(job_id)
        return self._unsent / name, self._sent / name


def write_synced(path: Path, text: str) -> None:
    """Replace `path` whole or not at all, synced to disk, readable for this user alone. Raises OSError."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".tmp", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut (fsync(2): the entry needs a sync of its own)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_name(job_id: str) -> str:
    """A job id is any text of the control plane's; as a file name it must not choose the path."""
    return f"{hashlib.sha256(job_id.encode('utf-8', 'replace')).hexdigest()}.json"
