"""One line per job that starts or ends: how far the campaign is, what runs, and how long the rest may take."""

import logging
import sys
import time
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

TOLD_HERE = (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS, LogEvent.JOB_INFO, LogEvent.RESOURCES_INFO)
SHOWN = ("base", "model", "method", "domain", "kind", "dataset", "training_set")


def attach(logger: logging.Logger) -> None:
    """Add the handler to Snakemake's logger, once."""
    if any(isinstance(handler, ProgressHandler) for handler in logger.handlers):
        return
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(_not_told_here)
    logger.addHandler(ProgressHandler())


def _not_told_here(record: logging.LogRecord) -> bool:
    """Keep Snakemake's own lines about starts and ends of jobs off the terminal; its log file has them."""
    event = getattr(record, "event", None)
    return event not in TOLD_HERE and not record.getMessage().startswith("Select jobs")


class ProgressHandler(logging.Handler):
    """Follows Snakemake's events; prints to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()
        self.titles: dict[int, str] = {}
        self.running: dict[int, float] = {}
        self.done, self.total = 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Handle one event; anything but job events is ignored."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            job = record.jobid  # type: ignore[attr-defined]
            self.titles[job] = _title(record.rule_name, record.wildcards)  # type: ignore[attr-defined]
            self.running[job] = time.monotonic()
            self._line("start", job)
        elif event == LogEvent.JOB_FINISHED:
            job = record.job_id  # type: ignore[attr-defined]
            seconds = time.monotonic() - self.running.pop(job, time.monotonic())
            self._line(f"done in {seconds:.0f} s:", job)
        elif event == LogEvent.JOB_ERROR:
            self.running.pop(getattr(record, "jobid", -1), None)
        elif event == LogEvent.PROGRESS:
            self.done, self.total = record.done, record.total  # type: ignore[attr-defined]

    def _line(self, what: str, job: int) -> None:
        elapsed = time.monotonic() - self.started
        count = f"{self.done}/{self.total}" if self.total else "0"
        rest = f", about {_duration(elapsed / self.done * (self.total - self.done))} left" if self.done > 5 else ""
        others = [self.titles.get(other, "?") for other in self.running if other != job]
        running = f"   (running: {', '.join(others)})" if others else ""
        print(f"[{count}, {_duration(elapsed)}{rest}] {what} {self.titles.get(job, '?')}{running}", file=sys.stderr, flush=True)


def _title(rule: str, wildcards: Any) -> str:
    values = dict(wildcards.items()) if hasattr(wildcards, "items") else {}
    return " ".join([rule, *(str(values[key]) for key in SHOWN if key in values)])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
