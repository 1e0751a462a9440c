"""What a person reads before and while a merge runs."""

from __future__ import annotations

import io

import pytest

from mergebench.merging import progress
from mergebench.merging.estimate import duration, size
from mergebench.merging.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; tests move it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_shows_a_bar_and_the_rest_of_the_time(clock: list[float]) -> None:
    stream = Terminal()
    with Progress("merging", stream) as bar:
        for done in range(1, 11):
            clock[0] += 2
            bar(done, 10)
    drawn = stream.getvalue().split("\r")
    assert "merging: 5/10 tensors, 10 s, 10 s left" in drawn[5]
    assert "#" * 15 + "." * 15 in drawn[5]
    assert drawn[-1].endswith("merging: 10/10 tensors, 20 s\n")


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with Progress("merging", stream) as bar:
        for done in range(1, 101):
            clock[0] += 0.5
            bar(done, 100)
    assert len(stream.getvalue().splitlines()) == 5


def test_what_an_earlier_process_did_says_nothing_of_the_speed(clock: list[float]) -> None:
    stream = Terminal()
    with Progress("merging", stream) as bar:
        bar(90, 100)
        clock[0] = 5
        bar(95, 100)
    assert "5 s left" in stream.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (414_251_280, "414 MB"), (16_060_000_000, "16.1 GB")]
)
def test_sizes_for_a_person(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (61, "1 min 1 s"), (7325, "2 h 2 min")])
def test_times_for_a_person(seconds: float, text: str) -> None:
    assert duration(seconds) == text
