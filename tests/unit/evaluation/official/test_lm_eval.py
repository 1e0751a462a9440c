"""lm-eval's result file: written from scores, read back, and the published ones."""

import json
import math

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.official import lm_eval
from mergebench.evaluation.scoring import Record
from mergebench.evaluation.settings import BenchmarkSetting
from tests.stubs import GoldModel
from tests.unit.evaluation.rows import ROWS

NAMES = [
    "ifeval",
    "gsm8k",
    "math",
    "m_mmlu",
    "m_arc",
    "m_hellaswag",
    "mmlu",
    "mmlu_stem",
    "triviaqa",
    "squadv2",
    "coqa",
    "pubmedqa",
    "wmt14",
    "lambada",
]


class Half(GoldModel):
    """Right about every other row."""

    def answer(self, task, doc):
        return super().answer(task, doc) if int(doc["id"].removeprefix("row-")) % 2 == 0 else "zzqx"

    def likely(self, task, doc, index):
        return super().likely(task, doc, index) is (int(doc["id"].removeprefix("row-")) % 2 == 0)


@pytest.fixture(scope="module")
def records(rows):
    found = Suite([BenchmarkSetting(name, shots=0) for name in NAMES], rows).evaluate(Half())
    return [Record({**r.summary, "base": "b", "model": "m"}, r.items) for r in found.values()]


@pytest.fixture(scope="module")
def written(records):
    return json.loads(json.dumps(lm_eval.write(records), allow_nan=False))


def test_languages_and_subjects_are_lm_evals_tasks(written):
    results = written["results"]
    assert {"arc_de", "arc_es", "m_mmlu_fr", "m_mmlu_ru", "hellaswag_fr", "gsm8k_cot", "wmt14-fr-en", "lambada_openai"} <= set(results)
    assert written["group_subtasks"]["mmlu"] == ["mmlu_high_school_physics", "mmlu_chemistry"]
    assert written["groups"]["mmlu"] == results["mmlu"]
    assert results["hendrycks_math_algebra"]["alias"] == " - hendrycks_math_algebra"


def test_numbers_are_means_over_the_items_of_the_task(written, records):
    mmlu = next(record for record in records if record.benchmark == "m_mmlu")
    french = [outcome for outcome, group in zip(mmlu.items["outcome"], mmlu.items["group"], strict=True) if group == "fr"]
    found = written["results"]["m_mmlu_fr"]
    assert found["acc,none"] == pytest.approx(sum(french) / len(french))
    assert found["acc_stderr,none"] == pytest.approx(
        math.sqrt(sum((x - found["acc,none"]) ** 2 for x in french) / (len(french) - 1) / len(french))
    )
    assert written["n-samples"]["m_mmlu_fr"] == {"original": 2, "effective": 2}
    assert written["results"]["m_mmlu_ru"]["acc_stderr,none"] == "N/A"


def test_both_filters_and_all_levels_are_there(written):
    results = written["results"]
    assert {"exact_match,strict-match", "exact_match,flexible-extract"} <= set(results["gsm8k_cot"])
    ifeval = results["ifeval"]
    assert ifeval["prompt_level_strict_acc,none"] <= ifeval["prompt_level_loose_acc,none"] <= ifeval["inst_level_loose_acc,none"]
    assert ifeval["inst_level_strict_acc_stderr,none"] == "N/A"
    assert results["squadv2"]["best_f1,none"] > 1  # percent, as lm-eval prints it
    assert results["lambada_openai"]["perplexity,none"] >= 1
    assert written["higher_is_better"]["lambada_openai"] == {"acc": True, "perplexity": False}


def test_what_is_written_is_read_back(written, tmp_path):
    path = tmp_path / "lm_eval.json"
    path.write_text(json.dumps(written))
    scores = {(score.benchmark, score.metric): score for score in lm_eval.read(path)}
    for task, values in written["results"].items():
        for key, value in values.items():
            if "," in key and "_stderr," not in key:
                assert scores[task, key].value == value
    assert scores["mmlu", "acc,none"].n == len(ROWS["mmlu"])
    assert scores["mmlu", "acc,none"].parts == {
        name: written["results"][name]["acc,none"] for name in ("mmlu_high_school_physics", "mmlu_chemistry")
    }


def test_lm_evals_own_table_is_made_of_it(written):
    from lm_eval.utils import make_table

    table = make_table(written)
    assert "arc_de" in table
    assert "acc_norm" in table


def test_the_same_scores_give_the_same_file(records, written):
    assert json.loads(json.dumps(lm_eval.write(records))) == written


def test_a_model_without_such_scores_has_no_file(rows):
    assert lm_eval.write([]) == {}


def test_a_published_result_is_understood(published, tmp_path):
    """The layout of lm-eval 0.4.9.1, with made-up numbers."""
    path = published(
        "lm_eval",
        {
            "results": {
                "arc_de": {"alias": "arc_de", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.25, "acc_norm_stderr,none": 0.1},
                "hendrycks_math": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.1, "alias": "hendrycks_math"},
                "hendrycks_math_algebra": {"alias": " - hendrycks_math_algebra", "exact_match,none": 0.5, "exact_match_stderr,none": "N/A"},
                "ifeval": {"alias": "ifeval", "inst_level_strict_acc,none": 1, "inst_level_strict_acc_stderr,none": "N/A"},
            },
            "groups": {},
            "group_subtasks": {"arc_de": [], "hendrycks_math": ["hendrycks_math_algebra"], "ifeval": []},
            "n-samples": {
                "arc_de": {"original": 8, "effective": 4},
                "hendrycks_math_algebra": {"original": 6, "effective": 6},
                "ifeval": {"original": 1, "effective": 1},
            },
        },
    )
    found = {(score.benchmark, score.metric): (score.value, score.n, score.parts) for score in lm_eval.read(path)}
    assert found == {
        ("arc_de", "acc,none"): (0.5, 4, {}),
        ("arc_de", "acc_norm,none"): (0.25, 4, {}),
        ("hendrycks_math", "exact_match,none"): (0.5, 6, {"hendrycks_math_algebra": 0.5}),
        ("hendrycks_math_algebra", "exact_match,none"): (0.5, 6, {}),
        ("ifeval", "inst_level_strict_acc,none"): (1.0, 1, {}),
    }


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"results": {"a": 1}}', "\udcff"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(MergebenchError, match=r"expected|result file"):
        lm_eval.read(path)


@pytest.mark.parametrize("model", ["Llama-3.1-8B", "Llama-3.2-3B"])
def test_the_published_files_count_what_the_catalogue_counts(published_file, model):
    """The number of scored rows that the catalogue states, from the authors' own results."""
    from mergebench import catalogue

    counts = {score.benchmark: score.n for score in lm_eval.read(published_file(f"{model}_RegMeanPlusPlus.lm_eval.json"))}
    rows = {name: entry["rows"] for name, entry in catalogue.benchmarks().items()}
    languages = ("fr", "es", "de", "ru")
    assert counts["ifeval"] == rows["ifeval"] == 541
    assert counts["gsm8k_cot"] == rows["gsm8k"] == 1319
    assert counts["hendrycks_math"] == rows["math"] == 5000
    for ours, theirs in (("m_mmlu", "m_mmlu"), ("m_arc", "arc"), ("m_hellaswag", "hellaswag")):
        assert sum(counts[f"{theirs}_{language}"] for language in languages) == rows[ours]


@pytest.mark.parametrize("model", ["Llama-3.1-8B", "Llama-3.2-3B"])
def test_every_task_and_key_of_the_published_files_is_one_of_ours(published_file, model):
    keys = {score.metric for score in lm_eval.read(published_file(f"{model}_RegMeanPlusPlus.lm_eval.json"))}
    ours = {metric.key for task in lm_eval.TASKS.values() for metric in task.metrics}
    assert keys <= ours
    document = json.loads(published_file(f"{model}_RegMeanPlusPlus.lm_eval.json").read_text())
    for ours_name, task in lm_eval.TASKS.items():
        for part in ("fr", "es", "de", "ru") if ours_name in ("m_mmlu", "m_arc", "m_hellaswag") else lm_eval.SUBJECTS:
            if ours_name in ("m_mmlu", "m_arc", "m_hellaswag", "math"):
                assert task.part(part) in document["results"]
    assert document["n-shot"]["gsm8k_cot"] == 8
    assert document["versions"]["m_mmlu_fr"] == 0.0
