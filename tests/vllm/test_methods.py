"""For every method and both families: weights and surrogate scores in a swapped engine are those of a fresh start on the merge on disk."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mergebench.config import load
from mergebench.evaluation import backends
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.tiny.generate import rows
from mergebench.tiny.shipped import shipped
from mergebench.tuning.live import LiveWeights
from mergebench.tuning.scorer import Scorer
from mergebench.workflow.plan import Plan
from tests.unit.tuning.twins import CASES, DOMAINS, measured
from tests.vllm.contents import everything
from tests.vllm.merges import write_specialist

SURROGATES = {"ifeval_like": "instruction", "mmlu_stem": "math", "lambada": "multilingual", "conala": "coding", "wildjailbreak": "safety"}
ITEMS, SEED = 16, 3


class Swapped(NamedTuple):
    """What one engine held and scored with each method's weights, one after another."""

    models: Models
    scorer: Scorer
    digests: dict[str, str]
    held: dict[str, dict[str, torch.Tensor]]
    scores: dict[str, list[dict[str, Any]]]


def start(folder: Path) -> Any:
    return backends.load("vllm", folder, dtype="float32", seed=0)


def scored(scorer: Scorer, lm: Any) -> list[dict[str, Any]]:
    """Scores on every surrogate with the outcome of every item."""
    lm.reset()
    return [{key: value for key, value in score.items() if key != "seconds"} for score in scorer.score(lm, list(SURROGATES.values()), None)]


def write_surrogates(folder: Path) -> dict[str, Path]:
    found = {}
    for name in SURROGATES:
        found[name] = folder / name / "rows.jsonl"
        found[name].parent.mkdir(parents=True)
        found[name].write_text("".join(json.dumps(row) + "\n" for row in rows(name, ITEMS, 1)))
    return found


@pytest.fixture(scope="module", params=["tiny-llama-strong", "tiny-gemma-2-strong"])
def swapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Swapped:
    folder, base = tmp_path_factory.mktemp(request.param), shipped(request.param)
    specialists = {domain: write_specialist(folder / domain, base, seed) for seed, domain in enumerate(DOMAINS)}
    models = Models.open(base, specialists, statistics=measured(folder, base))
    setting = {"formulation": "cloze", "apply_chat_template": True, "max_tokens": 12}
    references = dict.fromkeys(SURROGATES, 0.5)
    scorer = Scorer(dict.fromkeys(SURROGATES, setting), write_surrogates(folder), SURROGATES, references, folder=folder / "blocks")
    found = Swapped(models, scorer, {}, {}, {})
    lm = start(base)
    live = LiveWeights(lm, models.base)
    for method, (parameters, scale) in CASES.items():
        found.digests[method] = live.install(list(directions(models, method, parameters, seed=SEED)), scale)
        found.held[method], found.scores[method] = everything(lm), scored(scorer, lm)
    lm.close()
    return found


def test_every_method_of_the_paper_has_a_case() -> None:
    assert set(Plan(load(Path("config.yaml"), preset="paper")).methods) == set(CASES)


def test_methods_are_told_apart(swapped: Swapped) -> None:
    """What is compared below says something: no two methods have the same weights, and scores differ."""
    assert len(set(swapped.digests.values())) == len(CASES)
    assert len({json.dumps(score) for score in swapped.scores.values()}) == len(CASES)


@pytest.mark.parametrize("method", CASES)
def test_live_weights_and_scores_are_those_of_a_fresh_start_on_the_merge(tmp_path: Path, swapped: Swapped, method: str) -> None:
    parameters, scale = CASES[method]
    recipe = parameters if scale == 1.0 else {**parameters, "scale": scale}
    record = merge(swapped.models, method, recipe, folder=tmp_path, seed=SEED)
    assert record["realised_digest"] == swapped.digests[method]
    fresh = start(tmp_path)
    expected, scores = everything(fresh), scored(swapped.scorer, fresh)
    fresh.close()
    held = swapped.held[method]
    assert expected.keys() == held.keys()
    assert [name for name in expected if not torch.equal(expected[name], held[name])] == []
    assert scores == swapped.scores[method]
