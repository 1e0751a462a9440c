"""Spectra kept in a folder of the user's, for the next merge of the same models."""

from __future__ import annotations

from pathlib import Path

from mergebench.artifacts import sha256_json
from mergebench.errors import MergebenchError
from mergebench.merging.models import Models
from mergebench.merging.scope import names_counted
from mergebench.vectors.spectrum import Spectrum

FILES = "files"


def load_spectra(folder: Path, models: Models, scope: str) -> None:
    """Add to `models.spectra` what the folder has of these very files and covers the scope; the rest is measured when it is asked for."""
    names = set(names_counted(models.base, scope))
    for domain in models.domains:
        path = folder / f"{domain}.npz"
        if domain in models.spectra or not path.is_file():
            continue
        try:
            spectrum = Spectrum.load(path)
        except MergebenchError:
            continue
        if spectrum.origin.get(FILES) == _files(models, domain) and names <= set(spectrum.names):
            models.spectra[domain] = spectrum


def save_spectra(folder: Path, models: Models) -> None:
    """Write the spectra that were measured or refined; those that the recipe gave are kept elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for domain, spectrum in models.spectra.items():
        if set(spectrum.origin) - {FILES}:
            continue
        spectrum.origin = {FILES: _files(models, domain)}
        partial = folder / f"{domain}.npz.partial"
        spectrum.save(partial)
        partial.replace(folder / f"{domain}.npz")


def _files(models: Models, domain: str) -> str:
    """Which files a spectrum was measured on."""
    identity = models.identity()
    return sha256_json([identity["base"], identity[domain]])
