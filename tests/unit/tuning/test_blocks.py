"""Scores on blocks of items, put together, are the scores on all items, through a live model and real tasks."""

import json

import numpy as np
import pandas as pd
import pytest

from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from mergebench.evaluation import bleu
from mergebench.tuning import run as tuning
from mergebench.tuning.scorer import dealt
from mergebench.tuning.session import Session
from tests.unit.tuning.twins import tune_job, write_rows

SURROGATES = {"math": ["mmlu_stem", "conala"], "safety": ["wildjailbreak"]}
EVERYBODY_STAYS = {"search": "halving", "blocks": 3, "halving": {"keep": 0.5, "confidence": 1e9}}


def job(folder, **spec):
    made = tune_job(folder, "task_arithmetic", {"scale": [0.1, 0.6, 1.5]}, surrogates=SURROGATES, **spec)
    made.spec["evaluation"]["benchmarks"]["conala"] = {**made.spec["evaluation"]["benchmarks"]["mmlu_stem"], "shots": 0, "max_tokens": 24}
    if not (folder / "data/conala").exists():
        rows = [{"intent": f"add {n} to x", "snippet": f"x + {n} a b c d e"} for n in range(7)]
        write_rows(folder / "data", "conala", rows)
        (folder / "conala.json").write_text(json.dumps({"benchmark": "conala", "model": "specialist_math", "value": 0.25}))
    made.inputs["data"].append(folder / "data/conala/manifest.json")
    made.inputs["references"].append(folder / "conala.json")
    return made


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """The search with the full grid, and one in blocks from which nobody is dropped."""
    folder = tmp_path_factory.mktemp("searches")
    found = {}
    for name, spec in (("whole", {}), ("blocks", EVERYBODY_STAYS)):
        execute(tuning, job(folder, **spec))
        found[name] = {table: pd.read_parquet(folder / f"{table}.parquet") for table in ("search", "outcomes", "curve")}
        found[name]["best"] = (folder / "best.yaml").read_text()
    return found


def test_the_scores_of_all_blocks_are_those_of_the_whole(searches):
    whole, blocks = searches["whole"]["search"], searches["blocks"]["search"]
    assert whole["block"].isna().all()
    assert blocks["block"].dropna().nunique() == 3
    together = blocks[blocks["block"].isna()].reset_index(drop=True)
    columns = ["candidate", "parameters", "surrogate", "domain", "n", "weights"]
    pd.testing.assert_frame_equal(together[columns], whole[columns])
    for column in ("value", "normalised"):
        assert together[column].tolist() == pytest.approx(whole[column].tolist(), abs=1e-9)
    assert searches["blocks"]["best"] == searches["whole"]["best"]


def test_every_outcome_is_kept_once_and_has_its_block(searches):
    keys = ["candidate", "seed", "surrogate", "item"]
    whole, blocks = (searches[name]["outcomes"].sort_values(keys).reset_index(drop=True) for name in ("whole", "blocks"))
    assert not whole.duplicated(keys).any()
    pd.testing.assert_frame_equal(whole[[*keys, "outcome"]], blocks[[*keys, "outcome"]])
    assert blocks.groupby(["surrogate", "item"])["block"].nunique().max() == 1
    assert whole[whole["surrogate"] == "conala"]["counts"].map(len).eq(10).all()
    assert whole[whole["surrogate"] != "conala"]["counts"].isna().all()


def test_outcomes_give_the_scores_again(searches):
    outcomes, scores = searches["whole"]["outcomes"], searches["whole"]["search"]
    for surrogate in ("mmlu_stem", "wildjailbreak"):
        means = outcomes[outcomes["surrogate"] == surrogate].groupby("candidate")["outcome"].mean()
        logged = scores[(scores["surrogate"] == surrogate) & scores["alias_of"].isna()].set_index("candidate")["value"]
        assert means.to_dict() == pytest.approx(logged.to_dict())


def test_corpus_bleu_is_that_of_all_items_and_no_mean_of_blocks(tmp_path):
    made = job(tmp_path, **EVERYBODY_STAYS)
    scorer = Session(made).scorer
    words = np.random.default_rng(0).choice(list("abcd"), size=(6, 2, 9))
    counts = [bleu.counts(" ".join(reference), " ".join(answer)).tolist() for reference, answer in words]
    parts = [[_score(counts[:1])], [_score(counts[1:3])], [_score(counts[3:])]]
    (found,) = scorer.together(parts)
    assert found["value"] == bleu.score(np.sum(counts, 0), "add-one")
    assert found["n"] == 6
    assert found["normalised"] == found["value"] / 0.25
    assert found["value"] != pytest.approx(np.mean([bleu.score(np.sum(c, 0), "add-one") for c in (counts[:1], counts[1:3], counts[3:])]))


def _score(counts):
    items = [f"item {count}" for count in counts]
    columns = {"item": items, "group": [""] * len(items), "outcome": [0.0] * len(items), "counts": counts}
    return {"surrogate": "conala", "domain": "math", "seconds": 0.0, "reference": 0.25, "items": columns}


def test_more_blocks_than_rows_are_refused(tmp_path):
    with pytest.raises(MergebenchError, match=r"wildjailbreak has 3 rows, fewer than tuning\.halving\.blocks, 4"):
        execute(tuning, job(tmp_path, **{**EVERYBODY_STAYS, "blocks": 4}))


def test_dealing_depends_on_ids_and_salt_alone():
    ids = [f"item {number}" for number in range(103)]
    blocks = dealt(ids, 4, "0\0gsm8k")
    assert sorted(len(block) for block in blocks) == [25, 26, 26, 26]
    assert sorted(item for block in blocks for item in block) == sorted(ids)
    again = dealt(ids[::-1], 4, "0\0gsm8k")
    assert [set(block) for block in again] == [set(block) for block in blocks]
    assert dealt(ids, 4, "1\0gsm8k") != blocks
    assert all(block == [item for item in ids if item in block] for block in blocks)
