"""Which rows of a benchmark ask about the same thing: such rows are drawn together when scores are resampled."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGITS = 16


def cluster_of(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """A digest of the fields that a task's metadata names under ``cluster_by``, equal for rows that belong together.

    Empty where the task names none, or where the row lacks one or has nothing there: such a row stands for itself.
    """
    names = metadata.get("cluster_by")
    if not names:
        return ""
    values = [row.get(name) for name in ([names] if isinstance(names, str) else names)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:DIGITS] if all(values) else ""
