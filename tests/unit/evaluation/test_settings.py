"""Settings of a benchmark: validated, and complete in the catalogue."""

import pytest

from mergebench import catalogue
from mergebench.errors import MergebenchError
from mergebench.evaluation.settings import TASKS, BenchmarkSetting


def test_every_catalogue_entry_has_its_task_file_and_facts():
    for name, entry in catalogue.benchmarks().items():
        assert entry["task"] == f"{name}.yaml"
        assert (TASKS / entry["task"]).is_file()
        assert entry["role"] in ("in_domain", "forgetting", "surrogate")
        assert entry["direction"] == "higher"
        assert entry["rows"] > 0
        assert {"title", "domain", "metric", "shots", "generation", "dataset", "matches", "notes"} <= set(entry)


def test_the_papers_benchmarks_are_there():
    roles = [entry["role"] for entry in catalogue.benchmarks().values()]
    assert [roles.count(role) for role in ("in_domain", "forgetting", "surrogate")] == [12 + 1, 6, 5]  # the paper's, and pud_prose
    domains = [e["domain"] for e in catalogue.benchmarks().values() if e["role"] == "surrogate"]
    assert domains == ["instruction", "math", "multilingual", "coding", "safety"]


def test_fields_are_read_from_a_spec():
    setting = BenchmarkSetting.parse("gsm8k", {"shots": 0, "max_tokens": 48})
    assert (setting.shots, setting.max_tokens, setting.entry["domain"]) == (0, 48, "math")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("gsm8", {}, "benchmark 'gsm8' is not known; did you mean 'gsm8k'"),
        ("gsm8k", {"shot": 1}, "'shot' is not a setting; did you mean 'shots'"),
        ("gsm8k", {"formulation": "free"}, "formulation is 'free'; allowed: mcf, cloze"),
        ("gsm8k", {"limit": 0}, "limit is 0; it must be at least 1"),
        ("mbppplus", {"samples": 10, "temperature": 0}, "10 samples at temperature 0 are all the same"),
    ],
)
def test_mistakes_are_explained(name, values, sentence):
    with pytest.raises(MergebenchError, match=sentence):
        BenchmarkSetting.parse(name, values)
