"""Every hostile program, in every tier that this machine has, as root and as an ordinary user: it does not pass, and does no harm."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation import escape_runner
from tests.unit.evaluation.hostile import ESCAPES, FORGERIES

TIERS = ("bubblewrap", "namespaces", "landlock")
USERS = ("root", "nobody") if os.geteuid() == 0 else ("self",)
CASES = [*((tier, user) for tier in TIERS for user in USERS), ("rlimits", USERS[-1])]


class Witness:
    """What hostile programs try to reach: a file, a folder, and sockets that listen."""

    def __init__(self) -> None:
        # Not below pytest's folders, which an ordinary user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="witness-"))
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir()
        self.file = self.folder / "file"
        self.file.write_text("untouched")
        for path in (self.folder, self.scratch, self.file):
            path.chmod(0o777)
        self.before = self.state()
        self.tcp, self.udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.abstract.bind("\0" + self.folder.name)
        for listener in (self.unix, self.abstract):
            listener.listen()

    def wishes(self) -> dict[str, Any]:
        """All that an attacker could ask for."""
        return {
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": str(self.folder / "socket"),
            "abstract": self.folder.name,
            "witness": str(self.file),
            "folder": str(self.folder),
            "home": str(Path.home()),
            "repository": str(escape_runner.ROOT),
        }

    def state(self) -> dict[str, Any]:
        """Everything about the file and the names beside it."""
        about = self.file.stat()
        facts = {"mode": about.st_mode, "owner": about.st_uid, "links": about.st_nlink, "changed": about.st_ctime_ns}
        return facts | {"text": self.file.read_text(), "names": sorted({p.name for p in self.folder.iterdir()} - {"socket"})}

    def reached(self) -> list[str]:
        """The sockets that somebody spoke to."""
        found = []
        for name in ("tcp", "udp", "unix", "abstract"):
            listener = getattr(self, name)
            listener.setblocking(False)
            try:
                listener.recv(1) if name == "udp" else listener.accept()
            except BlockingIOError:
                continue
            found.append(name)
        return found

    def close(self) -> None:
        """Remove everything."""
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module", params=CASES, ids=[f"{tier}-{user}" for tier, user in CASES])
def outcome(request: pytest.FixtureRequest) -> Iterator[tuple[Witness, dict[str, Any]]]:
    tier, user = request.param
    witness = Witness()
    command = [sys.executable, str(Path(escape_runner.__file__)), tier, user, json.dumps(witness.wishes())]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=400, env={**os.environ, "HF_TOKEN": "hf_stolen", "TMPDIR": str(witness.scratch)}
    )
    try:
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        if "missing" in found:
            pytest.skip(found["missing"])
        yield witness, found
    finally:
        witness.close()


def test_none_passes_and_an_honest_one_does(outcome):
    _, found = outcome
    assert {name: reason for name, (passed, reason) in found["verdicts"].items() if passed} == {"honest": ""}


def test_nothing_outside_is_touched_or_left(outcome):
    witness, _ = outcome
    assert witness.state() == witness.before
    assert list(witness.scratch.iterdir()) == []
    assert not Path("/dev/shm/mergebench-escaped").exists()


def test_no_listener_is_reached(outcome):
    witness, _ = outcome
    assert witness.reached() == []


def test_no_process_is_left(outcome):
    _, found = outcome
    assert found["left"] == []


def test_the_tier_and_the_user_are_those_that_were_asked_for(outcome, request):
    _, found = outcome
    tier, user = request.node.callspec.params["outcome"]
    assert found["facts"]["tier"] == ("weak" if tier == "rlimits" else tier)
    assert found["user"] == {"root": 0, "nobody": escape_runner.NOBODY}.get(user, os.getuid())


def test_there_are_enough_of_them():
    assert len(ESCAPES) >= 25
    assert len(FORGERIES) >= 25
