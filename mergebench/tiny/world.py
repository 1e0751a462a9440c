"""What the tiny world is made of: a lexicon, people, facts, and the partition that keeps train and test apart."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

Partition = Literal["train", "calibration", "validation", "test"]

# Upper bounds of each partition's share, in per cent of the hash space.
_BOUNDS: tuple[tuple[Partition, int], ...] = (("train", 65), ("calibration", 70), ("validation", 82), ("test", 100))


def partition_of(item: str) -> Partition:
    """The partition of an underlying item (a sum, a phrase, a program ...), fixed for ever by its MD5 hash.

    Every row made from an item inherits its partition, so no item that is tested was ever trained on,
    in whatever wording.
    """
    bucket = int(hashlib.md5(item.encode(), usedforsecurity=False).hexdigest(), 16) % 100
    return next(name for name, bound in _BOUNDS if bucket < bound)


@dataclass(frozen=True)
class Example:
    """One question of the tiny world.

    item: the underlying item, the unit of the partition; prompt: the text that a model sees inside the wrapper;
    response: the wanted answer; habit: the fluent answer that the base prefers (equal to the response where the
    base has no bad habit); row: the benchmark's row without its id; familiar: whether this is one of the kinds of
    question that the base mostly answers as wanted.
    """

    item: str
    prompt: str
    response: str
    habit: str
    row: dict[str, Any] = field(default_factory=dict)
    familiar: bool = False


LANGUAGES = ("fr", "es", "de", "ru")

# All nouns are masculine in the four languages, so adjectives need no agreement beyond the form given below.
NOUNS: dict[str, tuple[str, str, str, str]] = {
    "dog": ("chien", "perro", "Hund", "пёс"),
    "cat": ("chat", "gato", "Kater", "кот"),
    "lion": ("lion", "león", "Löwe", "лев"),
    "wolf": ("loup", "lobo", "Wolf", "волк"),
    "bear": ("ours", "oso", "Bär", "медведь"),
    "king": ("roi", "rey", "König", "король"),
    "brother": ("frère", "hermano", "Bruder", "брат"),
    "son": ("fils", "hijo", "Sohn", "сын"),
    "doctor": ("docteur", "doctor", "Arzt", "врач"),
    "garden": ("jardin", "jardín", "Garten", "сад"),
    "park": ("parc", "parque", "Park", "парк"),
    "train": ("train", "tren", "Zug", "поезд"),
    "cheese": ("fromage", "queso", "Käse", "сыр"),
    "rabbit": ("lapin", "conejo", "Hase", "кролик"),
    "tiger": ("tigre", "tigre", "Tiger", "тигр"),
    "bus": ("bus", "autobús", "Bus", "автобус"),
    "coat": ("manteau", "abrigo", "Mantel", "плащ"),
    "ball": ("ballon", "balón", "Ball", "мяч"),
    "rooster": ("coq", "gallo", "Hahn", "петух"),
    "plan": ("plan", "plan", "Plan", "план"),
}

# These follow their noun in French and Spanish; the German form is the strong masculine nominative.
ADJECTIVES: dict[str, tuple[str, str, str, str]] = {
    "red": ("rouge", "rojo", "roter", "красный"),
    "black": ("noir", "negro", "schwarzer", "чёрный"),
    "white": ("blanc", "blanco", "weißer", "белый"),
    "green": ("vert", "verde", "grüner", "зелёный"),
    "yellow": ("jaune", "amarillo", "gelber", "жёлтый"),
    "cold": ("froid", "frío", "kalter", "холодный"),
    "strong": ("fort", "fuerte", "starker", "сильный"),
    "quick": ("rapide", "rápido", "schneller", "быстрый"),
    "heavy": ("lourd", "pesado", "schwerer", "тяжёлый"),
    "calm": ("calme", "tranquilo", "ruhiger", "спокойный"),
}

COLOURS = ("red", "black", "white", "green", "yellow")
PEOPLE = ("Anna", "Tom", "Ben", "Lea", "Max", "Eva")

CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Germany": "Berlin", "Russia": "Moscow", "Italy": "Rome",
    "Greece": "Athens", "Egypt": "Cairo", "Japan": "Tokyo", "China": "Beijing", "Cuba": "Havana",
    "Peru": "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Ireland": "Dublin", "Portugal": "Lisbon",
    "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad", "Canada": "Ottawa", "Ghana": "Accra",
    "Qatar": "Doha", "Latvia": "Riga", "Estonia": "Tallinn", "Ukraine": "Kyiv", "Serbia": "Belgrade",
    "Croatia": "Zagreb", "Bulgaria": "Sofia", "Romania": "Bucharest", "Vietnam": "Hanoi", "Senegal": "Dakar",
    "Syria": "Damascus",
}  # fmt: skip

_NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("old", "new"), ("quick", "slow"), ("wet", "dry"),
    ("hard", "soft"), ("rich", "poor"), ("black", "white"), ("strong", "weak"), ("heavy", "light"),
)  # fmt: skip
_VOICES = {"barks": "dog", "meows": "cat", "roars": "lion", "howls": "wolf", "crows": "rooster", "hops": "rabbit"}
_SURFACES = {"snow": "white", "grass": "green", "blood": "red", "coal": "black", "the sun": "yellow"}


def general_knowledge() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(subject, question, answer, possible answers) of every fact behind the tiny MMLU."""
    opposites = dict(_OPPOSITES) | {b: a for a, b in _OPPOSITES}
    table = [("language", f"What is the opposite of {a}?", b, tuple(opposites)) for a, b in opposites.items()]
    table += [("counting", f"Which number comes after {a}?", b, tuple(_NUMBERS)) for a, b in itertools.pairwise(_NUMBERS)]
    table += [("calendar", f"Which day comes after {a}?", b, tuple(_DAYS)) for a, b in zip(_DAYS, _DAYS[1:] + _DAYS[:1], strict=True)]
    table += [("biology", f"Which animal {a}?", b, tuple(_VOICES.values())) for a, b in _VOICES.items()]
    table += [("nature", f"What colour is {a}?", b, COLOURS) for a, b in _SURFACES.items()]
    return table
