"""200 broken inputs: each ends in one clear error and nothing under the final name, or in a correct merge."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergebench.cli import main
from tests.integration.mutations import MUTATIONS
from tests.reference.pico import family

SCALE = 0.4
CASES = 200

# Seconds after which a command counts as hanging.
PATIENCE = 60


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sound models: in one file, and in shards."""
    root = tmp_path_factory.mktemp("originals")
    for shards in (1, 3):
        family(root / str(shards), n=2, shards=shards, tied=shards == 3)
    return [root / "1", root / "3"]


@pytest.fixture
def no_hang() -> Iterator[None]:
    def hang(number: int, frame: object) -> None:
        raise AssertionError(f"the command hangs: {PATIENCE} s are over")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("case", range(CASES))
def test_a_broken_input_is_refused_or_merged_correctly(
    case: int, originals: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = random.Random(case)
    models = tmp_path / "models"
    shutil.copytree(dice.choice(originals), models)
    victim = dice.choice(["base", "specialist_instruction", "specialist_math"])
    mutation = MUTATIONS[case % len(MUTATIONS)]
    mutation(models / victim, dice)
    recipe = tmp_path / "recipe.yml"
    content = {
        "base": "models/base",
        "specialists": {"instruction": "models/specialist_instruction", "math": "models/specialist_math"},
        "method": "task_arithmetic",
        "parameters": {"scale": SCALE},
    }
    recipe.write_text(json.dumps(content))
    out = tmp_path / "out"

    status = main(["merge", str(recipe), str(out), "--quiet", "--threads", "1"])

    printed = capsys.readouterr()
    if status == 0:
        assert not (tmp_path / "out.partial").exists()
        _assert_correct(models, out)
        return
    assert status == 1
    assert not out.exists(), f"{mutation.__name__} of {victim}: something is left under the final name"
    message = printed.err.strip()
    assert message.startswith("mergebench: "), message
    assert "\n" not in message, message
    assert 1 <= len(re.findall(r"[.!?:;](?:\s|$)", message.removeprefix("mergebench: "))) <= 5, message
    assert len(re.findall(r"[.!?](?:\s|$)", message)) <= 2, message
    assert victim in message or "instruction" in message or "math" in message or "base" in message or "Tensor" in message, message


def test_every_mutation_breaks_something(originals: list[Path], tmp_path: Path) -> None:
    """A mutation that changes nothing would test nothing."""
    for number, mutation in enumerate(MUTATIONS):
        folder = tmp_path / str(number)
        shutil.copytree(originals[number % 2] / "base", folder)
        before = _content(folder)
        for seed in range(5):
            shutil.rmtree(folder)
            shutil.copytree(originals[number % 2] / "base", folder)
            mutation(folder, random.Random(seed))
            if _content(folder) != before:
                break
        else:
            pytest.fail(f"{mutation.__name__} changes nothing")


def _content(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def _assert_correct(models: Path, out: Path) -> None:
    """The output is what the published library reads from the inputs, merged in float64."""
    base, first, second, merged = (
        _load(folder) for folder in (models / "base", models / "specialist_instruction", models / "specialist_math", out)
    )
    for name, value in merged.items():
        origin = base[name].double()
        if not base[name].is_floating_point():
            assert torch.equal(value, base[name]), name
            continue
        expected = origin + SCALE * ((first[name].double() - origin) + (second[name].double() - origin))
        torch.testing.assert_close(value.double(), expected, rtol=1e-2 if value.dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert set(merged) == set(base) - ({"lm_head.weight"} - set(merged))


def _load(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "model.safetensors").exists():
        return load_file(folder / "model.safetensors")
    shards = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values()
    return {name: value for shard in sorted(set(shards)) for name, value in load_file(folder / shard).items()}
