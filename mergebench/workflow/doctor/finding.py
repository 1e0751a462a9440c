"""What a check says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "FAILED", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: what was found, and for a warning or a failure what to do."""

    check: str
    level: Level
    found: str
    todo: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, todo: str) -> Finding:
    """Runs will work, but something is worth knowing."""
    return Finding(check, "warning", found, todo)


def failed(check: str, found: str, todo: str) -> Finding:
    """Jobs of this preset would fail or hang."""
    return Finding(check, "FAILED", found, todo)


def skipped(check: str, why: str) -> Finding:
    """Could not be looked at here."""
    return Finding(check, "skipped", why)


def as_text(findings: Sequence[Finding]) -> str:
    """One line per finding, what to do below it, and the count at the end."""
    width = max(len(each.check) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{each.level:7}  {each.check:{width}}  {each.found}")
        if each.todo:
            lines.append(f"{'':7}  {'':{width}}  -> {each.todo}")
    counts = {level: sum(each.level == level for each in findings) for level in ("ok", "warning", "FAILED", "skipped")}
    return "\n".join([*lines, "", ", ".join(f"{count} {level}" for level, count in counts.items())])


def as_data(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as a JSON value."""
    return {"passed": not any_failed(findings), "findings": [asdict(each) for each in findings]}


def any_failed(findings: Sequence[Finding]) -> bool:
    """Whether jobs would fail."""
    return any(each.level == "FAILED" for each in findings)
