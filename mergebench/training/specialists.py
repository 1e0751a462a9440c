"""Where specialists come from: trained here, or imported from the hub or from folders (`training.specialists`).

Read by the configuration and the plan, so nothing heavy is imported.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mergebench import catalogue
from mergebench.errors import nearest

Setting = str | list[str] | dict[str, str]
TRAIN, PUBLISHED, DEFAULT = "train", "hub", "default"
_FOLDER = re.compile(r"[/.~$]")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A specialist to import: a repository of the hub at a revision (None: the locked one), or a folder."""

    hub: str | None = None
    revision: str | None = None
    path: str | None = None

    def spec(self) -> dict[str, str]:
        """What of it decides the result of an import."""
        if self.path is not None:
            return {"source": "local", "path": self.path}
        return {"source": "hub", "hub": str(self.hub), **({"revision": self.revision} if self.revision else {})}


def sources(setting: Setting, bases: Sequence[str], domains: Sequence[str]) -> dict[tuple[str, str], Source]:
    """The specialists that are imported, by base and domain; all others are trained.

    Args:
        setting: ``train``; ``hub`` (the published ones, as the catalogue names them); a list of repositories or folders called
            ``<base>_<domain>``; or a map from ``<base>/<domain>``, ``<base>``, ``<domain>`` or ``default`` (the first of these that is
            there counts) to ``train``, ``hub``, ``owner/name[@revision]`` or a folder. ``{base}`` and ``{domain}`` are filled in.

    Raises:
        ValueError: a key or value is unknown, or one repository would stand for several specialists.
    """
    if isinstance(setting, list):
        setting = {_named_by(value, bases, domains): value for value in setting}
    elif isinstance(setting, str):
        setting = {DEFAULT: setting}
    pairs = [(base, domain) for base in bases for domain in domains]
    known = [DEFAULT, *bases, *domains, *(f"{base}/{domain}" for base, domain in pairs)]
    for key in setting:
        if key not in known:
            close = nearest(key, known).partition(" (")[0]
            guess = close if close.endswith("?") else "allowed:"
            raise ValueError(f"{key!r} is not known; {guess} default, <base>, <domain> or <base>/<domain>")
    found: dict[tuple[str, str], Source] = {}
    for base, domain in pairs:
        value = next((setting[key] for key in (f"{base}/{domain}", base, domain, DEFAULT) if key in setting), TRAIN)
        if value != TRAIN:
            found[base, domain] = _source(value, base, domain)
    shared: dict[Source, tuple[str, str]] = {}
    for (base, domain), source in found.items():
        if source in shared:
            first = "/".join(shared[source])
            raise ValueError(f"{source.hub or source.path} stands for {first} and for {base}/{domain}; name one for each")
        shared[source] = (base, domain)
    return found


def _source(value: str, base: str, domain: str) -> Source:
    if value == PUBLISHED:
        value = catalogue.bases()[base].get("specialists", "")
        if not value:
            raise ValueError(f"no specialists of {base} are published; name a repository or a folder for {base}/{domain}, or train it")
    value = value.replace("{base}", base).replace("{domain}", domain)
    if _FOLDER.match(value):
        return Source(path=os.path.abspath(os.path.expandvars(os.path.expanduser(value))))
    name, _, revision = value.partition("@")
    if not _REPOSITORY.fullmatch(name):
        kinds = "train, hub, owner/name[@revision] and a folder that starts with / or ./"
        raise ValueError(f"{value!r} for {base}/{domain} is none of {kinds}")
    return Source(hub=name, revision=revision or None)


def _named_by(value: str, bases: Sequence[str], domains: Sequence[str]) -> str:
    """The base and domain that a repository or folder is called after."""
    last = (value if _FOLDER.match(value) else value.partition("@")[0]).rstrip("/").rpartition("/")[2]
    name, _, domain = last.rpartition("_")
    for base in bases:
        names = {base, catalogue.bases()[base].get("hub", "").rpartition("/")[2]}
        if domain in domains and name.lower() in {n.lower() for n in names}:
            return f"{base}/{domain}"
    raise ValueError(f"{value!r} is not called <base>_<domain>, with one of {', '.join(bases)} and {', '.join(domains)}; use a map")
