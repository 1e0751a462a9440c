"""The paper's Tables 7 and 8, as printed in its appendix D."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mergebench.catalogue import FOLDER, shipped

OVERALL = "Overall"

_FILES = {
    7: "table7_multitask_normalised_percent.csv",
    8: "table8_generalisation_percent_of_base.csv",
}
_METHODS = {
    "Fisher": "fisher",
    "DARE": "dare",
    "Model Soup": "model_soup",
    "TIES": "ties",
    "RegMean": "regmean",
    "Task Arithmetic": "task_arithmetic",
    "Consensus TA": "consensus_ta",
    "Dataless L&S": "dataless_localize_and_stitch",
    "L&S": "localize_and_stitch",
}


def published_table(number: int) -> pd.DataFrame:
    """Table 7 (normalised performance) or 8 (generalisation as % of base), in percent with one decimal.

    Returns:
        Frame indexed by base as the paper writes it ("Gemma-2-2b-it"), `Overall` last, one column per method slug, in the
        paper's column order.
    """
    return pd.read_csv(FOLDER / "published" / _FILES[number], index_col="base").rename(columns=_METHODS)


def published_bases() -> dict[str, dict[str, Any]]:
    """The catalogue's entries of the bases of the two tables, by the name that the paper writes."""
    entries = shipped("bases")
    return {name: entries[slug] for slug, name in published_names().items()}


def published_names() -> dict[str, str]:
    """The paper's name of each of its bases, by the catalogue's."""
    return {name.lower(): name for name in published_table(7).index if name != OVERALL}


PUBLISHED_NEEDS = {
    "model_soup": "nothing",
    "task_arithmetic": "validation",
    "fisher": "training",
    "regmean": "training and validation",
    "ties": "validation",
    "dare": "validation",
    "consensus_ta": "validation",
    "dataless_localize_and_stitch": "validation",
    "localize_and_stitch": "training",
}
"""The data that went into the paper's results: statistics of training data (section 3.2), and grids searched on surrogates (Table 6)."""
