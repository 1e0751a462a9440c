"""Fixtures: a random base of each family, a specialist near it, and calibration examples."""

from pathlib import Path

import pytest

from tests.unit.training.pico import pico_base, pico_llama, pico_tokenizer, sums  # noqa: F401


@pytest.fixture(scope="session")
def examples():
    """Twelve rows of different lengths."""
    from mergebench.training.examples import encode

    rows = [row | {"response": row["response"] + "0" * (i % 5)} for i, row in enumerate(sums(12))]
    return encode(pico_tokenizer(), rows, 64)


@pytest.fixture(scope="session")
def pico_specialist(pico_base, tmp_path_factory) -> Path:  # noqa: F811
    """Weights folder of the base plus a small random task vector, published as the math specialist of `pico`."""
    return write_specialist(pico_base, tmp_path_factory.mktemp("models"))


def write_specialist(base: Path, models: Path) -> Path:
    """The math specialist of a base called `pico`, below `models`."""
    import torch

    from mergebench.training.export import export_weights
    from mergebench.training.models import load_model

    folder = models / "pico" / "specialist_math" / "weights"
    folder.mkdir(parents=True)
    model = load_model(base)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    export_weights(model.state_dict(), base, folder)
    return folder


@pytest.fixture(scope="session")
def folders(pico_base, tmp_path_factory) -> dict[str, Path]:  # noqa: F811
    """Weights folders of two specialists that left the embedding as it was, by domain."""
    import torch

    from mergebench.training.export import export_weights
    from mergebench.training.models import load_model

    found = {}
    for seed, domain in enumerate(("math", "safety")):
        model = load_model(pico_base)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "embed" not in name:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        found[domain] = tmp_path_factory.mktemp("specialists") / domain
        found[domain].mkdir()
        export_weights(model.state_dict(), pico_base, found[domain])
    return found


@pytest.fixture(scope="session")
def samples(examples):
    """Rows of their domains."""
    return {"math": examples[:7], "safety": examples[7:]}
