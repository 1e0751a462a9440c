"""One engine per twin for all tests of the session; without `make test-vllm` every test here is skipped with its reason."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = None
    if "vllm" not in config.option.markexpr:
        reason = "runs a vLLM engine: run `make test-vllm`"
    elif importlib.util.find_spec("vllm") is None:
        reason = "vLLM is not installed in this environment: run `make test-vllm`, which makes one of its own"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=["tiny-llama-strong", "tiny-gemma-2-strong"])
def twin(request: pytest.FixtureRequest) -> Path:
    from mergebench.tiny.shipped import shipped

    return shipped(request.param)


@pytest.fixture(scope="session")
def engine(twin: Path) -> Iterator[Any]:
    """Ours on vLLM."""
    from mergebench.evaluation import backends

    lm = backends.load("vllm", twin, dtype="float32", seed=0)
    yield lm
    lm.close()


@pytest.fixture(scope="session")
def plain(twin: Path) -> Any:
    """Ours on transformers."""
    from mergebench.evaluation import backends

    return backends.load("transformers", twin, dtype="float32", seed=0, device="cpu")


@pytest.fixture(scope="session")
def stock(plain: Any) -> Any:
    """lm-eval's own `hf` model on the same module."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=plain.model, tokenizer=plain.tokenizer, batch_size=16)


@pytest.fixture(autouse=True)
def forgetful(request: pytest.FixtureRequest) -> None:
    """Every test starts with an empty prefix cache and no notes."""
    if "engine" in request.fixturenames:
        lm = request.getfixturevalue("engine")
        lm.reset()
        lm.recomputed = 0
        for each in (lm, request.getfixturevalue("plain")):
            each.truncated.clear()
            each.unfinished.clear()
