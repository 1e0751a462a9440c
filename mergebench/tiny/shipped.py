"""Where the pretrained twins that come with the package lie."""

from pathlib import Path

from mergebench.errors import MergebenchError, nearest

WEIGHTS = Path(__file__).resolve().parent / "weights"


def shipped(base: str) -> Path:
    """The folder of a pretrained twin.

    Raises:
        MergebenchError: no twin of that name comes with the package.
    """
    folder = WEIGHTS / base
    if not (folder / "config.json").is_file():
        present = sorted(path.name for path in WEIGHTS.glob("tiny-*"))
        raise MergebenchError(f"no pretrained twin {base!r} comes with the package; {nearest(base, present)}.")
    return folder
