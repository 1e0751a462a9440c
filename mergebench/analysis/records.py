"""Reading the JSON records that other stages leave, with errors that name the file and the key."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError


class Record:
    """One JSON object from a file, whose values are checked as they are taken."""

    def __init__(self, path: Path) -> None:
        """Parse `path`.

        Raises:
            MergebenchError: the file is unreadable, is not JSON, or does not hold an object.
        """
        self.path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MergebenchError(f"{path} cannot be read ({error.strerror}); make it again.") from error
        except ValueError as error:
            raise MergebenchError(f"{path} is not valid JSON ({error}); delete it so that it is made again.") from error
        if not isinstance(content, dict):
            raise MergebenchError(f"{path} holds a {type(content).__name__}; expected one JSON object.")
        self.content: dict[str, Any] = content

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def wrong(self, key: str, expected: str) -> MergebenchError:
        """The error for a value that is not what `expected` says."""
        found = repr(self.content[key]) if key in self.content else "nothing"
        return MergebenchError(f"{self.path}: key '{key}' holds {found}; expected {expected}.")

    def text(self, key: str) -> str:
        """A non-empty string."""
        value = self.content.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "a non-empty string")
        return value

    def number(self, key: str, low: float, high: float = math.inf) -> float:
        """A finite number in [low, high]; booleans, null and NaN are refused."""
        value = self.content.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        if not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """A JSON object."""
        value = self.content.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "a JSON object")
        return value
