"""What a method is charged for, and that an unknown cost is never zero."""

import json
import math

import pytest

from mergebench.analysis.costs import method_costs, read_costs, read_searches
from mergebench.errors import MergebenchError
from tests.unit.analysis.synthetic import Campaign

LLAMA = "tiny-llama-strong"


def test_a_method_pays_for_its_statistics_its_search_and_its_merge(campaign: Campaign) -> None:
    costs = campaign.write().evidence().costs.loc[LLAMA]
    assert costs["algorithm_seconds"].to_dict() == {"model_soup": 0.5, "ties": 2.5, "fisher": 7.5}
    assert costs["validation_seconds"].to_dict() == {"model_soup": 0.0, "ties": 7.0, "fisher": 14.0}
    assert costs["peak_memory_mib"].to_dict() == {"model_soup": 300.0, "ties": 301.0, "fisher": 302.0}
    assert costs["candidates"].to_dict() == {"model_soup": 0.0, "ties": 1.0, "fisher": 2.0}


@pytest.mark.parametrize("lost", ["merge/{}/fisher", "tune/{}/fisher", "statistics/{}/coding/fisher"])
def test_a_lost_record_makes_the_cost_unknown_not_smaller(campaign: Campaign, lost: str) -> None:
    campaign.write()
    (campaign.root / "costs" / f"{lost.format(LLAMA)}.json").unlink()
    costs = campaign.evidence().costs
    assert math.isnan(costs.loc[(LLAMA, "fisher"), "algorithm_seconds"])
    assert costs.drop((LLAMA, "fisher")).notna().all(axis=None)


def test_statistics_of_a_domain_that_takes_no_part_are_not_charged(campaign: Campaign) -> None:
    campaign.write()
    campaign.write_cost(f"statistics/{LLAMA}/cooking/fisher", {"algorithm": 99.0}, domain="cooking")
    assert campaign.evidence().costs.loc[(LLAMA, "fisher"), "algorithm_seconds"] == 7.5


def test_a_search_without_log_has_an_unknown_number_of_candidates(campaign: Campaign) -> None:
    campaign.write()
    (campaign.root / "tuning" / LLAMA / "ties" / "search.parquet").unlink()
    assert math.isnan(campaign.evidence().costs.loc[(LLAMA, "ties"), "candidates"])


def test_a_candidate_scored_on_many_surrogates_counts_once(campaign: Campaign) -> None:
    searches = read_searches(campaign.write().inputs["searches"]).set_index(["base", "method"])
    assert searches.loc[(LLAMA, "fisher"), "candidates"] == 2


def test_a_record_without_split_counts_as_a_whole(campaign: Campaign) -> None:
    paths = [
        campaign.write_cost(f"tune/{LLAMA}/ties", {}, method="ties"),
        campaign.write_cost(f"merge/{LLAMA}/ties", {}, method="ties"),
    ]
    costs = method_costs(read_costs(paths), read_searches([]), campaign.scope).loc[(LLAMA, "ties")]
    assert (costs["algorithm_seconds"], costs["validation_seconds"]) == (20.0, 20.0)


def test_training_and_evaluation_are_not_charged_to_methods(campaign: Campaign) -> None:
    path = campaign.write_cost(f"evaluate/{LLAMA}/merged_ties", {}, model="merged_ties")
    assert read_costs([path]).empty


@pytest.mark.parametrize(
    ("key", "value"),
    [("timing", None), ("timing", {"algorithm": -1}), ("timing", {"validation": "1"}), ("peak_rss_bytes", None), ("method", "")],
)
def test_a_malformed_record_is_refused_with_file_and_key(campaign: Campaign, key: str, value: object) -> None:
    path = campaign.write_cost(f"tune/{LLAMA}/ties", {"algorithm": 1.0}, method="ties")
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(MergebenchError, match=rf"ties\.json: key '{key}'"):
        read_costs([path])


def test_loading_models_is_not_charged(tmp_path):
    path = tmp_path / "costs/statistics/b/math/fisher.json"
    path.parent.mkdir(parents=True)
    record = {
        "stage": "statistics",
        "base": "b",
        "domain": "math",
        "wall_seconds": 5.0,
        "peak_rss_bytes": 1,
        "timing": {"load": 2.0, "fisher": 3.0},
    }
    path.write_text(json.dumps(record))
    assert read_costs([path])["algorithm"].tolist() == [3.0]


def test_the_spectrum_counts_as_a_kind_of_statistics(tmp_path):
    path = tmp_path / "costs/vectors/b/math.json"
    path.parent.mkdir(parents=True)
    record = {"stage": "vectors", "base": "b", "domain": "math", "wall_seconds": 2.0, "peak_rss_bytes": 1, "timing": {}}
    path.write_text(json.dumps(record))
    row = read_costs([path]).iloc[0]
    assert (row["stage"], row["kind"], row["domain"], row["algorithm"]) == ("statistics", "spectrum", "math", 2.0)
