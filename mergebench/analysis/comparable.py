"""Whether two scores of a benchmark measure the same thing: what their records say of metric, prompts, rows and judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

KINDS = {
    "metric": "the metric",
    "task": "the version of the task",
    "protocol": "the protocol",
    "prompt": "the prompt, the examples in it or the chat template",
    "generation": "how answers are generated",
    "judge": "the judge and what it counts",
    "data": "the rows or their revision",
}
"""Differences that make scores incomparable, by the name under which they can be allowed."""

_JUDGE = ("name", "reads", "counted", "prompt_sha256", "phrases_sha256", "window", "weights_digest", "max_length", "max_tokens")
_NOTED = {
    "backend": ("backend", "backend"),
    "dtype": ("backend", "dtype"),
    "longest prompt": ("backend", "max_length"),
    "limit of rows": ("settings", "limit"),
    "sandbox": ("sandbox", "tier"),
}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """What makes two records incomparable, each with the two values in words; empty if nothing does.

    What only one record says is not compared. Equal `task_hash`es, which are over documents, prompts and targets as they were asked, prove
    that rows and prompts are the same; unequal ones do not tell rows from prompts. So the rows are looked at first: of rows that
    differ, or of which another number was asked, the prompt's settings alone are compared.

    Args:
        one: a score record as evaluation writes it.
        other: that of the same benchmark, of the same or of another model.
    """
    found: dict[str, str] = {}
    for kind, path in (("metric", ("metric",)), ("task", ("task_version",)), ("protocol", ("settings", "protocol"))):
        _add(found, kind, path[-1].replace("_", " "), _at(one, *path), _at(other, *path))
    for key in ("samples", "generation"):
        _add(found, "generation", key, _at(one, "settings", key), _at(other, "settings", key))
    for key in _JUDGE:
        _add(found, "judge", key.replace("_", " "), _at(one, "judge", key), _at(other, "judge", key))
    asked = _at(one, "task_hash"), _at(other, "task_hash")
    if None not in asked and asked[0] == asked[1]:
        return found
    for key in ("shots", "formulation", "apply_chat_template"):
        _add(found, "prompt", key.replace("_", " "), _at(one, "settings", key), _at(other, "settings", key))
    if _at(one, "settings", "apply_chat_template"):
        _add(found, "prompt", "chat template", _at(one, "chat_template_sha256"), _at(other, "chat_template_sha256"))
    for key in ("rows_sha256", "revisions"):
        _add(found, "data", key.replace("_", " "), _at(one, "data", key), _at(other, "data", key))
    same_rows = "data" not in found and _at(one, "settings", "limit") == _at(other, "settings", "limit")
    if same_rows:
        _add(found, "prompt", "documents and prompts", *asked)
    return found


def notes(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Differences that do not make scores incomparable but may explain one: backend, precision, versions, a limit of rows."""
    found: dict[str, str] = {}
    for name, path in _NOTED.items():
        _add(found, name, "", _at(one, *path), _at(other, *path), absent=name == "limit of rows")
    versions = _at(one, "versions") or {}, _at(other, "versions") or {}
    for library in sorted(versions[0].keys() & versions[1].keys()):
        _add(found, library, "", versions[0][library], versions[1][library])
    return found


def _at(record: Mapping[str, Any], *path: str) -> Any:
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _add(found: dict[str, str], kind: str, what: str, one: Any, other: Any, *, absent: bool = False) -> None:
    """Note two values that differ; where one is unknown, only if its absence says something (`absent`)."""
    if one == other or (None in (one, other) and not absent):
        return
    text = f"{what} {_short(one)} and {_short(other)}".strip()
    found[kind] = f"{found[kind]}; {text}" if kind in found else text


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value, sort_keys=True)
    if len(text) == 64 and all(letter in "0123456789abcdef" for letter in text):
        return text[:8]
    return text if len(text) <= 60 else text[:57] + "..."
