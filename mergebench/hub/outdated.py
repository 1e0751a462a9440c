"""Results that were fetched at another commit than the one that the lock names now."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergebench.artifacts import MANIFEST, read_json
from mergebench.hub import lock

ASIDE = "manifest.outdated.json"
WHERE = (f"models/*/*/{MANIFEST}", f"data/*/{MANIFEST}")


def set_outdated_aside(results: Path, path: Path, *, dry_run: bool = False) -> list[str]:
    """Rename the manifest of every fetched artifact whose commit the lock no longer names, so that it is fetched again.

    Returns one sentence per artifact.
    """
    records = lock.read(path)
    sentences = []
    if not any(records.values()):
        return []
    for manifest in sorted(found for pattern in WHERE for found in results.glob(pattern)):
        for kind, entry, commit in fetched(read_json(manifest)):
            locked = records[kind].get(entry, commit)
            if locked == commit:
                continue
            if not dry_run:
                manifest.rename(manifest.with_name(ASIDE))
            does = "A run would fetch" if dry_run else "This run fetches"
            sentences.append(f"{manifest.parent} is {entry} at {commit[:12]}, and {path} names {locked[:12]}. {does} it again.")
            break
    return sentences


def fetched(manifest: dict[str, Any]) -> Iterator[tuple[lock.Kind, str, str]]:
    """Kind, entry in the lock, and commit of every hub repository that an artifact was fetched from."""
    spec, stage = manifest.get("spec", {}), manifest.get("stage")
    if stage in ("fetch_base", "import") and manifest.get("revision"):
        yield "model", lock.entry(spec["hub"], spec.get("revision")), manifest["revision"]
    if stage == "prepare":
        parts = spec.get("entry", {}).get("hub", {}).get("parts", {}).values()
        asked = {part["id"]: part.get("revision") for part in parts if "id" in part}
        for name, commit in manifest.get("revisions", {}).items():
            yield "dataset", lock.entry(name, asked.get(name)), commit
