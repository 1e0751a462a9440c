"""The rows that overlap a benchmark, by id. Read by every stage that leaves them out."""

import json
from pathlib import Path

from mergebench.errors import MergebenchError


def contaminated(path: Path) -> set[str]:
    """Ids of the rows that a decontamination report's ``hits.jsonl`` lists (none, if the file is empty).

    Raises:
        MergebenchError: a line that is not a hit, with its number.
    """
    found = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.add(str(json.loads(line)["id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise MergebenchError(f"{path}, line {number}: not a hit ({error}); make the report again.") from None
    return found
