"""Score records: what is read, and what is refused with the file and the key."""

import json

import pandas as pd
import pytest

from mergebench.analysis.scores import read_scores, select
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign


def test_a_record_becomes_one_tidy_row(campaign: Campaign) -> None:
    path = campaign.write_score("tiny-llama-strong", "merged_ties", "gsm8k", 0.25)
    row = read_scores([path]).iloc[0]
    assert (row["kind"], row["method"], row["specialist_of"]) == ("merged", "ties", "")
    assert (row["value"], row["standard_error"], row["n"]) == (0.25, 0.02, 50)


def test_a_specialist_is_known_by_its_domain(campaign: Campaign) -> None:
    row = read_scores([campaign.write_score("tiny-llama-strong", "specialist_math", "math", 0.5)]).iloc[0]
    assert (row["kind"], row["specialist_of"], row["method"]) == ("specialist", "math", "")


def test_a_metric_without_standard_error_has_nan(campaign: Campaign) -> None:
    path = campaign.write_score("tiny-llama-strong", "base", "wmt14", 0.3, standard_error=None)
    assert read_scores([path])["standard_error"].isna().all()


def test_the_order_of_files_does_not_matter(campaign: Campaign) -> None:
    paths = campaign.write().inputs["scores"]
    pd.testing.assert_frame_equal(read_scores(paths), read_scores(reversed(paths)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("value", "0.5"),
        ("value", 1.5),
        ("value", float("nan")),
        ("value", True),
        ("value", None),
        ("standard_error", -0.1),
        ("n", 0),
        ("role", "exam"),
        ("model", "merged"),
        ("benchmark", "math"),
        ("base", "another-base"),
        ("domain", ""),
        ("metric", None),
        ("higher_is_better", False),
    ],
)
def test_a_malformed_record_is_refused_with_file_and_key(campaign: Campaign, key: str, value: object) -> None:
    path = campaign.write_score("tiny-llama-strong", "merged_ties", "gsm8k", 0.5)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(MergebenchError, match=rf"gsm8k\.json: key '{key}' holds .*; expected"):
        read_scores([path])


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_file_that_is_no_record_is_refused_by_name(campaign: Campaign, content: str) -> None:
    path = campaign.score_path("tiny-llama-strong", "base", "gsm8k")
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(MergebenchError, match=r"gsm8k\.json"):
        read_scores([path])


def test_a_score_given_twice_is_refused(campaign: Campaign) -> None:
    path = campaign.write_score("tiny-llama-strong", "base", "gsm8k", 0.5)
    with pytest.raises(MergebenchError, match="tiny-llama-strong/base on 'gsm8k' was given twice"):
        read_scores([path, path])


def test_scores_of_what_the_configuration_no_longer_has_are_left_out(campaign: Campaign) -> None:
    paths = [
        campaign.write_score("tiny-llama-weak", "base", "gsm8k", 0.5),
        campaign.write_score("tiny-llama-strong", "merged_dare", "gsm8k", 0.5),
        campaign.write_score("tiny-llama-strong", "merged_ties", "gsm8k", 0.5),
    ]
    assert list(select(read_scores(paths), campaign.scope)["model"]) == ["merged_ties"]


@pytest.mark.parametrize(("key", "value"), [("role", "forgetting"), ("domain", "coding")])
def test_a_score_made_for_another_purpose_is_refused(campaign: Campaign, key: str, value: str) -> None:
    path = campaign.write_score("tiny-llama-strong", "base", "gsm8k", 0.5, **{key: value})
    with pytest.raises(MergebenchError, match=rf"gsm8k\.json has {key} '{value}', but the campaign's"):
        select(read_scores([path]), campaign.scope)


def test_surrogate_scores_do_not_reach_the_tables(campaign: Campaign) -> None:
    paths = [
        campaign.write_score("tiny-llama-strong", "specialist_math", "mmlu_stem", 0.5, role="surrogate", domain="math"),
        campaign.write_score("tiny-llama-strong", "specialist_math", "gsm8k", 0.5),
    ]
    assert list(select(read_scores(paths), campaign.scope)["benchmark"]) == ["gsm8k"]
