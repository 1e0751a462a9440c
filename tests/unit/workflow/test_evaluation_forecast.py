"""What scoring one model costs: counts that others have published, and relations that must hold."""

import json
import shutil

import pytest

from mergebench import artifacts, catalogue
from mergebench.artifacts import Job
from mergebench.data import prepare
from mergebench.errors import MergebenchError
from mergebench.workflow import evaluation_forecast
from tests.unit.workflow.test_plan import plan


@pytest.fixture(scope="module")
def paper():
    return evaluation_forecast.record(plan().configuration)


# Requests that lm-eval sends for the full data sets: choices x questions, and two per question of SQuAD v2.
PUBLISHED = {"m_mmlu": 210_760, "m_hellaswag": 149_408, "gsm8k": 1_319, "mmlu": 56_168, "squadv2": 23_746, "pubmedqa": 1_500, "coqa": 500}


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_requests_are_those_of_the_full_data_sets(paper, benchmark):
    assert paper["benchmarks"][benchmark]["requests"] == PUBLISHED[benchmark]


def test_letters_take_one_pass_per_question_and_texts_one_per_choice(paper):
    rows = paper["benchmarks"]
    assert rows["m_mmlu"]["passes"] * 4 == rows["m_mmlu"]["requests"]
    assert rows["m_hellaswag"]["passes"] == rows["m_hellaswag"]["requests"]
    cloze = evaluation_forecast.record(plan("paper", lambda p: p["evaluation"].update(formulation="cloze")).configuration)
    assert cloze["benchmarks"]["m_mmlu"]["passes"] == rows["m_mmlu"]["requests"]


def test_ours_never_reads_more_than_lm_eval_and_answers_stay_within_their_limits(paper):
    for name, row in paper["benchmarks"].items():
        assert row["read"] <= row["read_lm_eval"], name
        assert row["generated_expected"] <= row["generated_most"], name
        assert row["seconds"] <= row["seconds_lm_eval"], name


def test_totals_and_groupings_add_up(paper):
    rows = paper["benchmarks"].values()
    assert paper["total"]["requests"] == sum(row["requests"] for row in rows)
    groupings = paper["groupings"]
    assert groupings["model"]["engine_starts"] == 1
    assert groupings["benchmark"]["engine_starts"] == len(paper["benchmarks"]) == 18
    assert groupings["model"]["seconds"] < groupings["length"]["seconds"] < groupings["benchmark"]["seconds"]
    assert groupings["length"]["longest_seconds"] <= groupings["benchmark"]["longest_seconds"] * 1.001
    work = {round(g["seconds"] - 60 * g["engine_starts"], 3) for g in groupings.values()}
    assert len(work) == 1, "grouping changes engine starts, not work"


def test_the_judge_starts_once_for_all_models_of_a_base_or_once_for_each(paper):
    assert paper["judge"]["answers"] == 749 + 320 + 300 + 450
    assert paper["judge"]["engine_starts_per_model"] == pytest.approx(1 / 17)
    own = evaluation_forecast.record(plan("paper", lambda p: p["evaluation"].update(judging="model")).configuration)
    assert own["judge"]["engine_starts_per_model"] == 1


def test_more_samples_generate_more_and_read_no_more(paper):
    tenfold = {"humanevalplus": {"samples": 10, "temperature": 0.2}}
    changed = evaluation_forecast.record(plan("paper", lambda p: p["evaluation"].update(benchmarks=tenfold)).configuration)
    before, after = (found["benchmarks"]["humanevalplus"] for found in (paper, changed))
    assert after["generated_most"] == 10 * before["generated_most"]
    assert after["requests"] == 10 * before["requests"]
    assert after["read"] == before["read"]
    assert changed["programs"] == paper["programs"] + 9 * 164


def test_the_released_protocol_samples_programs_ten_times(paper):
    released = evaluation_forecast.record(plan("paper", lambda p: p["evaluation"].update(protocol="released")).configuration)
    assert released["programs"] == 10 * paper["programs"]
    assert released["benchmarks"]["math"]["generated_most"] < paper["benchmarks"]["math"]["generated_most"]


def test_the_base_is_the_one_named_or_the_nearest_to_8_billion(paper):
    assert paper["base"] == "llama-3.1-8b"
    smaller = evaluation_forecast.record(plan().configuration, "gemma-2-2b")
    assert smaller["total"]["seconds"] < paper["total"]["seconds"] / 2
    with pytest.raises(MergebenchError, match="--base gemma-2-3b is not a base of preset paper"):
        evaluation_forecast.record(plan().configuration, "gemma-2-3b")


def test_fetched_data_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = plan("micro")
    manifest = tmp_path / made.data("gsm8k")
    outputs = {name: manifest.with_name(f"{name}.jsonl") for name in ("rows", "examples")} | {"manifest": manifest}
    artifacts.execute(prepare, Job("prepare", made.spec("prepare", dataset="gsm8k"), {}, outputs, tmp_path / "state"))
    row = evaluation_forecast.record(made.configuration)["benchmarks"]["gsm8k"]
    prompts = [len(f"Q: {json.loads(line)['question']}\nA:") for line in outputs["rows"].read_text().splitlines()]
    assert (row["source"], row["rows"]) == ("data", len(prompts))
    assert row["read"] == pytest.approx(sum(prompts) / evaluation_forecast.CHARACTERS, rel=0.01)
    shutil.rmtree(manifest.parent)
    assert evaluation_forecast.record(made.configuration)["benchmarks"]["gsm8k"]["source"] == "catalogue"


def test_a_benchmark_of_unknown_lengths_is_forecast_too(monkeypatch):
    known = catalogue.lengths()
    unknown = {name: length for name, length in known.items() if name not in ("gsm8k", "m_arc")}
    monkeypatch.setattr(catalogue, "lengths", lambda: unknown)
    rows = evaluation_forecast.record(plan().configuration)["benchmarks"]
    assert rows["gsm8k"]["requests"] == 1_319
    assert rows["m_arc"]["requests"] == 4 * rows["m_arc"]["rows"]


def test_the_text_names_every_benchmark_and_says_what_was_assumed(paper):
    text = evaluation_forecast.render(paper)
    assert all(name in text for name in paper["benchmarks"])
    assert paper["assumptions"] in text
