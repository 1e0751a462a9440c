"""The judges by name, and their entries in the catalogue."""

import pytest

from mergebench import catalogue
from mergebench.errors import MergebenchError
from mergebench.evaluation.safety import judges


def test_the_catalogue_has_every_judge_that_is_a_model():
    assert list(catalogue.judges()) == [name for name in judges.NAMES if name != "keyword"]


@pytest.mark.parametrize("name", catalogue.judges())
def test_an_entry_says_what_its_judge_labels_and_where_its_weights_are(name):
    entry = catalogue.judges()[name]
    assert tuple(entry["labels"]) == judges.reads(name)
    assert entry["hub"].count("/") == 1
    assert {"title", "revision", "gated", "licence", "parameters", "notes"} <= entry.keys()


def test_an_unknown_judge_names_the_nearest():
    for ask in (judges.check, judges.reads, judges.create):
        with pytest.raises(MergebenchError, match=r"evaluation\.judge is 'wildgard'.*wildguard"):
            ask("wildgard")
