"""Rows made by the tiny world's generator."""

from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError
from mergebench.tiny import generate


def load(dataset: str, count: int | None, calibration: int, seed: int) -> Loaded:
    """Generate `count` rows and, for a training set, `calibration` rows that share no item with them."""
    if count is None:
        raise MergebenchError(f"{dataset}: the tiny source generates as many rows as asked for; set data.limit or data.rows.")
    apart = dataset.replace("train_", "calibration_", 1)
    if calibration and apart in generate.DATASETS:
        return Loaded(generate.rows(dataset, count, seed), calibration=generate.rows(apart, calibration, seed))
    return Loaded(generate.rows(dataset, count + calibration, seed))
