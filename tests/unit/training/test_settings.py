"""Settings: one clear sentence for a wrong key or value."""

import subprocess
import sys

import pytest

from mergebench.errors import MergebenchError
from mergebench.training.settings import SftSettings, parse


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0, "learning_rate": 1.0}, "settings.learning_rat: .*allowed keys: learning_rate"),
        ({}, "settings.learning_rate: Field required"),
        ({"learning_rate": -1}, r"settings.learning_rate: .*greater than 0.*\(found -1\)"),
        (
            {"learning_rate": 1, "mixture": "all"},
            r"settings.mixture: .*mixture 'all' is unknown; allowed: proportional, balanced, capped\(N\)",
        ),
    ],
)
def test_a_wrong_setting_is_named(values, message):
    with pytest.raises(MergebenchError, match=message):
        parse(SftSettings, values, "settings")


def test_the_configuration_can_import_the_settings_cheaply():
    code = "import sys, mergebench.training.settings; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
