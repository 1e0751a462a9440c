"""The keys of the configuration, their values and defaults, as docs/configuration.md writes them."""

import json
from collections.abc import Iterator
from typing import Any

WORDS = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "null": "null"}
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
# What stands for a key that the user chooses. A preset's own name is left out: all keys below it are a preset's.
CHOSEN = {
    "bases": "<base>.",
    "domains": "<domain>.",
    "supervised": "<size>.",
    "methods": "<method>.",
    "controls": "<control>.",
    "benchmarks": "<benchmark>.",
}


def keys(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(dotted key, what it may be, default) of every key, in the order of the schema."""
    yield from _below(schema, "", schema["$defs"])


def _below(section: dict[str, Any], prefix: str, known: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, entry in section.get("properties", {}).items():
        yield f"{prefix}{key}", _kind(entry, known), _default(entry)
        below = "" if key == "presets" else f"{prefix}{key}."
        for option in (_resolved(choice, known) for choice in entry.get("anyOf", [entry])):
            yield from _below(option, below, known)
            values = option.get("additionalProperties") or next(iter(option.get("patternProperties", {}).values()), None)
            if isinstance(values, dict):
                yield from _below(_resolved(values, known), below + CHOSEN.get(key, ""), known)


def _resolved(entry: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return known[entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


def _kind(entry: dict[str, Any], known: dict[str, Any]) -> str:
    entry = _resolved(entry, known)
    if "anyOf" in entry:
        return " or ".join(_kind(option, known) for option in entry["anyOf"])
    allowed = entry.get("enum") or ([entry["const"]] if "const" in entry else [])
    if allowed:
        return ", ".join(f"`{value}`" for value in allowed)
    if entry.get("type") == "array":
        return "list of names"
    if entry.get("type") == "object":
        return "map"
    bounds = [f"{sign} {entry[name]:g}" for name, sign in BOUNDS.items() if name in entry]
    return " ".join([WORDS[entry["type"]], ", ".join(bounds)]).strip()


def _default(entry: dict[str, Any]) -> str:
    if "default" not in entry:
        return "required"
    value = entry["default"]
    return "those of its keys" if isinstance(value, dict) and value else f"`{value if isinstance(value, str) else json.dumps(value)}`"
