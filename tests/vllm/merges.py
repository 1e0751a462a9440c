"""Models to merge that an engine can be started on."""

import shutil
from pathlib import Path

import torch


def write_specialist(folder: Path, base: Path, seed: int) -> Path:
    """The base plus seeded noise."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for file in base.glob("*.safetensors"):
        tensors |= load_file(file)
    noisy = {n: (t + 0.02 * torch.randn(t.shape, generator=generator)).to(t.dtype) for n, t in tensors.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
