"""Named recipes of supervised fine-tuning, where the paper and the code that its authors released differ."""

from typing import Any, Literal

Recipe = Literal["paper", "released"]

# What a recipe changes in the settings of a size class. Those of the configuration are the paper's (appendix C.1).
CHANGES: dict[Recipe, dict[str, Any]] = {
    "paper": {},
    # github.com/uiuctml/MergeBench, scripts/llama-3.1-8b_code.yaml, the only recipe released: one for all sizes. Its batch is
    # 8 GPUs x 1 row x 20 accumulations = 160 rows packed to 2048 tokens; its template, `gpteacher`, is Alpaca's.
    "released": {
        "max_length": 2048,
        "learning_rate": 2.0e-5,
        "batch_size": 160,
        "batch_unit": "packs",
        "packing": True,
        "micro_batch_size": 1,
        "epochs": 2,
        "schedule": "cosine",
        "warmup": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "template": "alpaca",
        "dtype": "bfloat16",
        "sharding": "zero3",
        "activation_checkpointing": "none",
    },
}


def under(recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of SFT (a mapping, as in the configuration) as the recipe has them; what it does not name stays."""
    return settings | CHANGES[recipe]
