"""Real certificates for tests, made by the `openssl` program: authorities of their own, and what they sign.

`Authority(directory)` is one; `authority.sign("web-1")` gives a pair of files for a server or a client. Keys are of
P-256, for they are made at once.
"""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import need

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
LOCAL = ("DNS:localhost", "IP:127.0.0.1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in two files."""

    certificate: Path
    key: Path

    def put_over(self, other: "Pair") -> None:
        """Replace the files of another pair by these, as a renewal does."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            new = theirs.with_suffix(".new")
            new.write_bytes(mine.read_bytes())
            new.replace(theirs)

    @property
    def settings(self) -> dict[str, str | None]:
        """Return the settings with which a server shows it."""
        return {"TLS_CERTFILE": str(self.certificate), "TLS_KEYFILE": str(self.key)}


class Authority:
    """A certificate authority whose files are in `directory`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        need("openssl")
        self._directory = directory
        self.certificate = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        _openssl(
            "req", "-x509", *_EC, "-keyout", self._key, "-out", self.certificate, "-days", "30", "-subj", f"/CN={name}"
        )

    def sign(
        self, common_name: str, *, names: tuple[str, ...] = LOCAL, days: int = 30, file: str | None = None
    ) -> Pair:
        """Return a pair for `common_name` and `names` (`DNS:web-1`, `IP:127.0.0.1`); under 0 `days` it has ended."""
        stem = self._directory / (file or common_name.replace("*", "any"))
        pair = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "basicConstraints=CA:FALSE\n")
        _openssl("req", *_EC, "-keyout", pair.key, "-out", request, "-subj", f"/CN={common_name}")
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            *signer,
            "-days",
            str(days),
            "-extfile",
            extensions,
            "-out",
            pair.certificate,
        )
        return pair

    def client(self, shown: Pair | None = None) -> ssl.SSLContext:
        """Return what a client trusts that knows this authority alone, and shows a pair if one is given."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


def encrypted(pair: Pair) -> Pair:
    """Return the pair with its key under a password, in a file of its own."""
    key = pair.key.with_suffix(".encrypted")
    _openssl("pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", key)
    return Pair(pair.certificate, key)


def _openssl(*arguments: str | Path) -> None:
    ended = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
