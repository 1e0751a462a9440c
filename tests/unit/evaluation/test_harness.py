"""Whole evaluations: ceilings and floors, records, items, and one suite for several models."""

import json
import math

import pytest

from mergebench import catalogue
from mergebench.errors import MergebenchError
from mergebench.evaluation import bleu
from mergebench.evaluation.asking import Asking
from mergebench.evaluation.backends.transformers import TransformersLanguageModel
from mergebench.evaluation.harness import Suite, evaluate
from mergebench.evaluation.settings import BenchmarkSetting
from tests.stubs import NONSENSE, GoldModel, RubbishModel
from tests.unit.evaluation.rows import ROWS

# Silence is right for SQuAD's unanswerable question; add-one smoothing gives something for nothing.
FLOORS = {
    "squadv2": 1 / 3,
    "conala": bleu.score(sum(bleu.counts(row["snippet"], NONSENSE) for row in ROWS["conala"]), "add-one"),
}
SETTINGS = {"allow_weak_sandbox": True, "timeout_seconds": 10.0}


def settings(names=None, **values):
    return [BenchmarkSetting(name, **SETTINGS, **values) for name in names or catalogue.benchmarks()]


@pytest.fixture(scope="module", params=["mcf", "cloze"])
def suite(request, rows):
    return Suite(settings(formulation=request.param, apply_chat_template=request.param == "cloze"), rows)


def test_gold_reaches_every_ceiling(suite):
    records = suite.evaluate(GoldModel())
    assert list(records) == list(catalogue.benchmarks())
    assert {name: record.value for name, record in records.items() if record.value != pytest.approx(1.0)} == {}


def test_rubbish_stays_on_every_floor(suite):
    for name, record in suite.evaluate(RubbishModel()).items():
        assert record.value == FLOORS.get(name, 0.0), name


def test_record_has_everything_that_explains_it(rows):
    record = evaluate(GoldModel(), settings(["m_mmlu"]), rows)["m_mmlu"]
    summary = json.loads(json.dumps(record.summary))
    assert summary["parts"] == {"fr": 1.0, "ru": 1.0}
    assert {"benchmark": "m_mmlu", "domain": "multilingual", "role": "in_domain", "metric": "acc", "n": 3}.items() <= summary.items()
    assert summary["settings"] == {
        "protocol": "corrected",
        "shots": 0,
        "formulation": "mcf",
        "apply_chat_template": False,
        "limit": None,
        "samples": 1,
        "generation": None,
    }
    assert summary["data"]["source"] == "local"
    assert len(summary["data"]["rows_sha256"]) == len(summary["task_hash"]) == 64
    assert {"lm_eval", "torch", "transformers"} <= set(summary["versions"])
    assert summary["judge"] is None
    assert summary["sandbox"] is None
    assert summary["extraction_failures"] is None
    assert summary["empty_responses"] is None
    assert summary["seconds"]["asked"] >= 0
    assert summary["direction"] == "higher"


def test_answers_without_anything_to_extract_and_empty_ones_are_counted(rows):
    summary = evaluate(RubbishModel(), settings(["gsm8k"]), rows)["gsm8k"].summary
    assert (summary["extraction_failures"], summary["empty_responses"]) == (len(ROWS["gsm8k"]), 0)
    silent = evaluate(RubbishModel(), settings(["ifeval"]), rows)["ifeval"].summary
    assert silent["empty_responses"] == len(ROWS["ifeval"])


class Forgetful(GoldModel):
    """Says of every prompt that it had to be cut."""

    max_length = 7

    def __init__(self):
        super().__init__()
        self.truncated, self.unfinished = set(), set()

    def generate_until(self, requests, disable_tqdm=True):
        self.truncated |= {request.args[0] for request in requests}
        return super().generate_until(requests)


def test_a_benchmark_whose_prompts_do_not_fit_is_refused_and_the_others_are_kept(rows):
    finished = []
    asking = Asking(settings(["wmt14", "m_arc"]), rows, most_cut=0.5)
    with pytest.raises(MergebenchError, match=r"wmt14: 2 of 2 prompts are longer than the model's 7 tokens"):
        asking.ask(Forgetful(), finished=lambda name, result: finished.append(name))
    assert finished == ["m_arc"]
    record = evaluate(Forgetful(), settings(["wmt14"]), rows)["wmt14"]
    assert record.summary["truncated"]["prompts"] == 2


def test_judge_and_sandbox_are_recorded(rows):
    records = evaluate(GoldModel(), settings(["xstest", "mbppplus"]), rows)
    assert records["xstest"].summary["judge"]["name"] == "keyword"
    assert records["mbppplus"].summary["sandbox"]["timeout_seconds"] == 10.0


@pytest.mark.parametrize("name", list(ROWS))
def test_items_follow_the_rows(suite, name):
    items = suite.evaluate(GoldModel())[name].items if name == "ifeval" else None
    if items is None:
        items = evaluate(GoldModel(), [suite.settings[name]], suite.asking.rows)[name].items
    assert list(items.columns) == ["item", "outcome", "group", "cluster", "response", "extracted", "extra"]
    assert list(items["item"]) == [row["id"] for row in ROWS[name]]
    assert items["outcome"].between(0, 1).all()
    assert all(isinstance(json.loads(extra), dict) for extra in items["extra"])
    assert items["response"].map(type).eq(str).all()


def test_programs_are_scored_over_their_samples(rows):
    [setting] = settings(["humanevalplus"], samples=3, temperature=0.2)
    record = evaluate(GoldModel(), [setting], rows)["humanevalplus"]
    assert record.value == 1.0
    assert json.loads(record.items["extra"][0])["passed"] == [True, True, True]
    assert record.summary["settings"]["samples"] == 3


def test_multiple_choice_items_name_the_choice_and_both_metrics(rows):
    items = evaluate(GoldModel(), settings(["m_arc"]), rows)["m_arc"].items
    assert list(items["response"]) == ["Feuer", "cielo"]
    assert list(items["group"]) == ["de", "es"]
    assert json.loads(items["extra"][0]) == {"acc": 1.0, "acc_bytes": 1.0}


def test_gsm8k_keeps_the_strict_outcome(rows):
    items = evaluate(RubbishModel(), settings(["gsm8k"]), rows)["gsm8k"].items
    assert json.loads(items["extra"][0])["exact_match,strict-match"] == 0.0


def test_unscorable_prompts_are_counted_and_left_out(rows, tmp_path, monkeypatch):
    from mergebench.evaluation import instruction_following

    monkeypatch.setattr(instruction_following, "_has_sentence_models", lambda: False)
    sentences = {
        "id": "s",
        "prompt": "Two sentences.",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [ROWS["ifeval"][0], sentences]))
    record = Suite(settings(["ifeval"]), {"ifeval": path}).evaluate(GoldModel())["ifeval"]
    assert (record.value, record.summary["n"], record.summary["unscorable"]["count"]) == (1.0, 1, 1)
    assert math.isnan(record.items["outcome"][1])
    path.write_text(json.dumps(sentences) + "\n")
    with pytest.raises(MergebenchError, match=r"none of 1 rows can be scored.*punkt_tab"):
        evaluate(GoldModel(), settings(["ifeval"]), {"ifeval": path})


def test_one_suite_scores_changed_weights(rows, tokenizer):
    import torch

    from tests.unit.evaluation.conftest import make_model

    suite = Suite(settings(["m_arc", "wmt14", "squadv2"], apply_chat_template=True, max_tokens=8), rows)
    lm = TransformersLanguageModel(make_model("llama"), tokenizer)
    first, again = (suite.evaluate(lm) for _ in range(2))
    assert {n: {**r.summary, "seconds": 0} for n, r in first.items()} == {n: {**r.summary, "seconds": 0} for n, r in again.items()}
    assert first["wmt14"].items.equals(again["wmt14"].items)
    assert first["wmt14"].summary["truncated"]["answers"] == 2
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    assert not suite.evaluate(lm)["wmt14"].items.equals(first["wmt14"].items)


def test_the_model_sees_the_template_once(rows, tokenizer):
    from tests.unit.evaluation.conftest import make_model

    suite = Suite(settings(["wmt14"], apply_chat_template=True, max_tokens=4), rows)
    suite.evaluate(TransformersLanguageModel(make_model("llama"), tokenizer))
    assert suite.asking.tasks["wmt14"].instances[1].args[0] == (
        "<bos>### Instruction:\nFrench phrase: Il pleut.\nEnglish phrase:\n\n### Response:\n"
    )


def test_records_come_as_they_are_finished(rows):
    seen = []
    Suite(settings(["math", "wmt14"]), rows).evaluate(GoldModel(), finished=lambda name, record: seen.append((name, record.value)))
    assert seen == [("math", 1.0), ("wmt14", pytest.approx(1.0))]


def test_mistakes_are_found_before_anything_is_scored(rows):
    with pytest.raises(MergebenchError, match="named twice"):
        Suite(settings(["math", "math"]), rows)
    with pytest.raises(MergebenchError, match="judge is 'wildgard'"):
        Suite([BenchmarkSetting("xstest", judge="wildgard")], rows)
    with pytest.raises(MergebenchError, match="only programs and answers to safety prompts"):
        Suite([BenchmarkSetting("math", samples=4, temperature=1.0)], rows)
    with pytest.raises(MergebenchError, match="has no rows among the inputs"):
        Suite(settings(["math"]), {})
