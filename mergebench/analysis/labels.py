"""How models, methods and domains are called and coloured, the same in every table and figure."""

from __future__ import annotations

from collections.abc import Iterable

BASE = "base"
MULTITASK = "multitask"
RANDOM_DIRECTION = "random_direction"
CONTROL_MERGES = (RANDOM_DIRECTION,)
"""Merges that are no methods."""
SEED_MARK = "-seed"
"""Stands before the seed in the name of a model that is not its method's first."""
MERGED_PREFIX = "merged_"
SPECIALIST_PREFIX = "specialist_"

UNTOUCHED_BASE = "untouched_base"
"""Table name of the control "the base as it is" (a column called `base` would clash with the row labels)."""

BEST_SPECIALIST = "best_specialist"
"""Table name of the control "the best single specialist"."""

_TITLES = {
    UNTOUCHED_BASE: "Untouched base",
    BEST_SPECIALIST: "Best single specialist",
    MULTITASK: "Multitask",
    RANDOM_DIRECTION: "Random direction",
    "model_soup": "Model Soup",
    "task_arithmetic": "Task Arithmetic",
    "fisher": "Fisher",
    "regmean": "RegMean",
    "ties": "TIES",
    "dare": "DARE",
    "consensus_ta": "Consensus TA",
    "dataless_localize_and_stitch": "Dataless L&S",
    "localize_and_stitch": "L&S",
}

# Paul Tol's "muted" scheme: nine colours that stay distinct for colour-blind readers.
_PALETTE = {
    "model_soup": "#332288",
    "task_arithmetic": "#88CCEE",
    "fisher": "#DDCC77",
    "regmean": "#117733",
    "ties": "#CC6677",
    "dare": "#AA4499",
    "consensus_ta": "#44AA99",
    "dataless_localize_and_stitch": "#999933",
    "localize_and_stitch": "#882255",
    UNTOUCHED_BASE: "#808080",
    MULTITASK: "#000000",
    RANDOM_DIRECTION: "#A0522D",
}
# Methods that somebody adds take these in turn (Okabe and Ito's colours, then markers tell them apart).
_SPARE_COLOURS = ("#E69F00", "#0072B2", "#D55E00", "#56B4E9", "#009E73")
_CONTROL_MARKERS = {UNTOUCHED_BASE: "H", MULTITASK: "*", RANDOM_DIRECTION: "h"}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "d")


def title(slug: str) -> str:
    """Display name of a method, control or domain: the paper's where it has one, else made from the slug."""
    return _TITLES.get(slug, slug.replace("_", " ").replace("-", " ").capitalize())


def model_title(model: str) -> str:
    """Display name of a model folder's name (`base`, `specialist_math`, `multitask`, `merged_ties`)."""
    if model == BASE:
        return title(UNTOUCHED_BASE)
    if model.startswith(SPECIALIST_PREFIX):
        return f"{title(model.removeprefix(SPECIALIST_PREFIX))} specialist"
    method, _, seed = model.removeprefix(MERGED_PREFIX).partition(SEED_MARK)
    return f"{title(method)}, seed {seed}" if seed else title(method)


def model_of(name: str) -> str:
    """Folder name of the model behind a table column: a method's slug or a control."""
    if name == UNTOUCHED_BASE:
        return BASE
    return name if name == MULTITASK else MERGED_PREFIX + name


def methods_in_order(methods: Iterable[str]) -> tuple[str, ...]:
    """Methods in the paper's order, then added ones by name."""
    found = set(methods)
    known = [method for method in _TITLES if method in found]
    return (*known, *sorted(found.difference(known)))


def colour(slug: str, methods: tuple[str, ...]) -> str:
    """Colour of a method or control; `methods` is the campaign's list, which fixes the colours of added ones."""
    if slug in _PALETTE or slug not in methods:
        return _PALETTE.get(slug, _PALETTE[RANDOM_DIRECTION])
    added = [method for method in methods if method not in _PALETTE]
    return _SPARE_COLOURS[added.index(slug) % len(_SPARE_COLOURS)]


def marker(slug: str, methods: tuple[str, ...]) -> str:
    """Marker of a method or control in scatter plots, so that colour is never the only difference."""
    if slug not in methods:
        return _CONTROL_MARKERS.get(slug, _CONTROL_MARKERS[RANDOM_DIRECTION])
    return _MARKERS[methods.index(slug) % len(_MARKERS)]


def signed(number: float, decimals: int) -> str:
    """A difference with its sign; one that rounds to zero is +0, whichever side it comes from."""
    return f"{round(number, decimals) + 0.0:+.{decimals}f}"
