"""bigcode's metrics file: written from scores, read back, and the published ones."""

import json
import math
from fractions import Fraction
from itertools import combinations

import pandas
import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation.official import code_eval
from mergebench.evaluation.scoring import Record


def scored(benchmark, passes, samples):
    extra = [json.dumps({"passed": [True] * c + [False] * (samples - c), "reasons": []}) for c in passes]
    items = pandas.DataFrame({"item": [str(i) for i in range(len(passes))], "outcome": [c / samples for c in passes], "extra": extra})
    generation = {"do_sample": True, "temperature": 0.2, "top_p": 0.95, "max_gen_toks": 512, "max_total_toks": 512, "until": []}
    settings = {"samples": samples, "generation": generation, "limit": None, "protocol": "released", "shots": 0}
    return Record({"benchmark": benchmark, "base": "b", "model": "m", "value": 0.5, "settings": settings}, items)


def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_a_pass():
    samples = 11
    passes = [0, 1, 5, 11]
    written = code_eval.write([scored("humanevalplus", passes, samples)])["humanevalplus"]
    assert set(written) == {"pass@1", "pass@10"}
    for k in (1, 10):
        shares = [
            Fraction(sum(any(s < c for s in chosen) for chosen in combinations(range(samples), k)), math.comb(samples, k)) for c in passes
        ]
        assert written[f"pass@{k}"] == pytest.approx(float(sum(shares) / len(shares)))


def test_settings_have_the_harness_names():
    written = code_eval.write([scored("humanevalplus", [1], 10), scored("mbppplus", [2, 3], 10)])
    config = written["config"]
    assert {"do_sample": True, "temperature": 0.2, "top_p": 0.95, "n_samples": 10, "max_length_generation": 512}.items() <= config.items()
    assert config["tasks"] == "humanevalplus,mbppplus"
    assert config["model"] == "b/m"
    one = code_eval.write([scored("humanevalplus", [1], 10), scored("mbppplus", [1], 1)])
    assert one["config"]["n_samples"] == [10, 1]
    assert set(one["mbppplus"]) == {"pass@1"}


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "code_eval.json"
    written = code_eval.write([scored("mbppplus", [2, 3], 10)])
    path.write_text(json.dumps(written))
    assert {(score.benchmark, score.metric): score.value for score in code_eval.read(path)} == {
        ("mbppplus", key): value for key, value in written["mbppplus"].items()
    }


def test_no_scores_no_file(tmp_path):
    assert code_eval.write([]) == {}
    path = tmp_path / "code_eval.json"
    path.write_text('{"config": {}}')
    with pytest.raises(MergebenchError, match="no metrics by task"):
        code_eval.read(path)


@pytest.mark.parametrize("model", ["Llama-3.1-8B", "Llama-3.2-3B"])
def test_the_published_numbers_are_shares_of_the_catalogues_rows(published_file, model):
    from mergebench import catalogue

    path = published_file(f"{model}_RegMeanPlusPlus.code_eval.json")
    scores = {(score.benchmark, score.metric): score.value for score in code_eval.read(path)}
    config = json.loads(path.read_text())["config"]
    for benchmark in ("humanevalplus", "mbppplus"):
        rows = catalogue.benchmarks()[benchmark]["rows"]
        # Each row has 0 to 10 passes of 10, and pass@10 of 10 samples is whether there is one.
        for metric, steps in (("pass@1", rows * config["n_samples"]), ("pass@10", rows)):
            passes = scores[benchmark, metric] * steps
            assert passes == pytest.approx(round(passes), abs=1e-6)
    ours = code_eval.write([scored("humanevalplus", [1], 10)])["config"]
    assert {key for key in ours if key not in ("max_new_tokens", "protocol")} <= set(config)
    for key in ("do_sample", "temperature", "top_k", "top_p", "n_samples", "max_length_generation"):
        assert ours[key] == config[key]
