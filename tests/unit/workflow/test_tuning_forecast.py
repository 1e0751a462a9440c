"""`mergebench plan tune`: candidates, weight builds, engine starts, bytes and hours of one base."""

import json

import pytest

from mergebench.cli import main
from mergebench.errors import MergebenchError
from mergebench.workflow import tuning_forecast
from mergebench.workflow.estimates import Estimates
from mergebench.workflow.resources import Escalation, Resources, Site
from tests.unit.workflow.test_plan import ROOT, plan

PER_METHOD, PER_BASE, FROM_DISK = "one job per method", "one job per base", "a checkpoint and an engine start per candidate"


def forecast(preset="paper", base=None, site=None, **tuning):
    def change(raw):
        if tuning:
            raw["tuning"] = tuning

    return tuning_forecast.record(plan(preset, change).configuration, site or Site(), base)


@pytest.fixture(scope="module")
def paper():
    return forecast()


def test_the_papers_search_in_numbers(paper):
    assert (paper["base"], paper["backend"], paper["bases"]) == ("llama-3.1-8b", "vllm", 8)
    assert (paper["total"]["candidates"], paper["total"]["weight_builds"], paper["total"]["engine_starts"]) == (115, 43, 6)
    assert paper["ways"][PER_BASE]["engine_starts"] == 1
    assert paper["ways"][FROM_DISK]["engine_starts"] == paper["ways"][FROM_DISK]["weight_builds"] == 115
    assert paper["surrogates"] == {"ifeval_like": 541, "mmlu_stem": 3153, "lambada": 5153, "conala": 500, "wildjailbreak": 2000}
    # 90 candidates on everything; 25 thresholds on the surrogate of one domain each, 5 of each domain.
    assert paper["total"]["questions"] == 95 * sum(paper["surrogates"].values())


def test_what_is_read_and_written(paper):
    """Six models of 16 GB per direction, and the base once more for each candidate and engine."""
    size = 2 * paper["parameters"]
    arithmetic = paper["methods"]["task_arithmetic"]
    assert arithmetic["read_bytes"] == 6 * size + 10 * size
    assert arithmetic["written_bytes"] < 1e9, "no candidate is written"
    assert paper["methods"]["regmean"]["read_bytes"] > 5 * 6 * size + 5 * size, "statistics are read too"
    assert paper["ways"][FROM_DISK]["written_bytes"] - paper["total"]["written_bytes"] == pytest.approx(115 * size)
    assert paper["ways"][PER_METHOD]["read_bytes"] - paper["ways"][PER_BASE]["read_bytes"] == 5 * size


def test_totals_add_up_and_ways_differ_in_starts_only(paper):
    for name in tuning_forecast.COLUMNS:
        total = sum(row[name] for row in paper["methods"].values())
        if name not in ("engine_starts", "read_bytes", "hours"):
            assert paper["total"][name] == total
    minutes = 60 * (paper["ways"][PER_METHOD]["hours"] - paper["ways"][PER_BASE]["hours"])
    assert minutes == pytest.approx(5), "five engine starts of a minute"
    assert paper["ways"][FROM_DISK]["hours"] > paper["total"]["hours"]


def test_a_direction_that_does_not_fit_into_the_jobs_memory_is_written_and_read(monkeypatch):
    roomy = forecast()
    monkeypatch.setattr(Estimates, "held", lambda self, base: 100.0 * self.parameters(base))
    monkeypatch.setattr(Estimates, "_tune", lambda self, base, method: Estimates._searching(self, base, []))
    cramped = forecast()
    more = cramped["total"]["written_bytes"] - roomy["total"]["written_bytes"]
    assert more > 43 * 10e9
    assert cramped["total"]["read_bytes"] - roomy["total"]["read_bytes"] == pytest.approx(more / 43 * 115)


def test_one_direction_fits_into_the_memory_that_a_job_asks_for():
    made = plan("paper")
    resources = Resources(made, Site())
    for base in made.bases:
        estimate = resources.estimates.of("tune", base=base, method="ties")
        assert resources.request(estimate, Escalation()).mem_mb * 2**20 / 2 >= resources.estimates.held(base)


def test_the_fused_job_is_the_sum_of_the_methods_and_is_the_total_where_it_is_configured():
    made = plan("paper", lambda p: p.update(tuning={"fused": True}))
    estimates = Estimates(made)
    base = made.bases[0]
    each = [estimates.of("tune", base=base, method=m).seconds for m in made.tuned]
    assert estimates.of("tune_base", base=base).seconds == pytest.approx(sum(each))
    fused = forecast(fused=True)
    assert fused["total"] == fused["ways"][PER_BASE]


def test_other_ways_to_search_say_what_they_save():
    halving, golden, budget = forecast(search="halving"), forecast(search="golden"), forecast(budget={"evaluations": 12})
    assert golden["fewest_evaluations"] < 115 / 1.3
    assert "halving scores at least" in tuning_forecast.render(halving)
    assert "budget of each method: at most 12 evaluations" in tuning_forecast.render(budget)


def test_seeds_cost_what_they_cost():
    once, thrice = forecast(), forecast(seeds=3)
    assert thrice["methods"]["dare"]["evaluations"] == 90
    assert thrice["methods"]["ties"] == once["methods"]["ties"]
    assert thrice["total"]["candidates"] == 115
    assert "3 seeds" in tuning_forecast.render(thrice)


def test_a_judge_with_a_model_labels_the_answers_of_every_candidate():
    def keyword(raw):
        raw["evaluation"]["judge"] = "keyword"

    without = tuning_forecast.record(plan("paper", keyword).configuration, Site())
    assert without["total"]["hours"] < forecast()["total"]["hours"]
    assert without["total"]["questions"] == forecast()["total"]["questions"]


def test_all_bases_are_the_sum_of_each():
    each = [forecast(base=base)["total"]["hours"] for base in plan("paper").bases]
    assert forecast()["bases_hours"] == pytest.approx(sum(each))


def test_a_base_that_is_not_there_is_refused():
    with pytest.raises(MergebenchError, match="--base gemma-2-3b is not a base of preset paper"):
        forecast(base="gemma-2-3b")


def test_the_text_names_every_method_and_warns_of_a_test_set(paper):
    text = tuning_forecast.render(paper)
    assert all(method in text for method in paper["methods"])
    assert paper["assumptions"] in text
    assert "warning" not in text
    released = plan("paper", lambda p: p["evaluation"].update(protocol="released"))
    assert "warning: methods were tuned on a test set" in tuning_forecast.render(tuning_forecast.record(released.configuration, Site()))


def test_a_preset_that_tunes_nothing_has_nothing_to_forecast():
    made = plan("paper", lambda p: p["merging"].update(methods={"model_soup": {}}))
    found = tuning_forecast.record(made.configuration, Site())
    assert set(found["total"].values()) == {0}
    assert tuning_forecast.render(found)


def test_the_command(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["plan", "tune", "--preset", "tiny", "--base", "tiny-llama-strong", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["base"], record["total"]["candidates"], record["gpu"]) == ("tiny-llama-strong", 115, False)
