"""Sources: the Compose files of deploys that wait for their turn, at hand as long as there is room for them.

The dispatcher keeps them from a deploy's acceptance to its send or its end; one that is not here is in the store.
"""

MAX_BYTES = 32 * 1024 * 1024
"""Of all files together: some thousands of usual ones, and no more of memory however many deploys wait."""
MAX_FILE_BYTES = 16 * 1024
"""Large ones are few, and would push many out."""


class Sources:
    """Compose files by the id of their job."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._bytes = 0

    def keep(self, job_id: str, source: bytes) -> None:
        """Keep a file, if it and all others fit."""
        if len(source) <= MAX_FILE_BYTES and self._bytes + len(source) <= MAX_BYTES:
            self.drop(job_id)
            self._files[job_id] = source
            self._bytes += len(source)

    def find(self, job_id: str) -> bytes | None:
        """Return the file of a job, None if it is not here."""
        return self._files.get(job_id)

    def drop(self, job_id: str) -> None:
        """Forget the file of a job, if it is here."""
        self._bytes -= len(self._files.pop(job_id, b""))
