"""The one exception that reaches a user as a sentence instead of a traceback."""

import difflib


class MergebenchError(Exception):
    """What was found, where, what was expected and what to do, in one or two sentences."""


def nearest(name: str, valid: list[str]) -> str:
    """Half a sentence that suggests the nearest valid name and lists all."""
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    allowed = f"allowed: {', '.join(valid)}" if valid else "nothing is allowed here"
    return f"did you mean {close[0]!r}? ({allowed})" if close else allowed
