"""Who may use the network: jobs with `--online` have the hub and its token, all others neither."""

import os

import pytest

from mergebench.cli import job_of, parser

VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@pytest.mark.parametrize("online", [True, False])
def test_the_hub_its_token_and_its_lock_belong_to_fetches_alone(monkeypatch, online):
    for name in VARIABLES:
        monkeypatch.setenv(name, "0")
    for name in TOKENS:
        monkeypatch.setenv(name, "secret")
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):  # which a job sets
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    words = ["run", "prepare", "--spec", "{}", *(["--online"] if online else [])]
    job = job_of(parser().parse_args(words))
    assert [os.environ[name] for name in VARIABLES] == ["0" if online else "1"] * 4
    assert [name in os.environ for name in TOKENS] == [online] * 2
    assert (job.hub_lock is not None) == online
