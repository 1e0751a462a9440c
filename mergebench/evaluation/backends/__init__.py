"""Language-model backends: what lm-eval asks (log-likelihoods and generations), answered by live weights.

`load` is the one place that knows the backends. Each is an `lm_eval.api.model.LM`; what it promises besides is said in
`base.LanguageModel`. A backend's libraries are imported when it is loaded: an environment needs those of the one it uses.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergebench.errors import MergebenchError, nearest

if TYPE_CHECKING:
    from mergebench.evaluation.backends.base import LanguageModel

BACKENDS = ("transformers", "vllm")


def load(backend: str, weights: Path, **settings: Any) -> "LanguageModel":
    """The language model of a Hugging Face folder, with its beginning-of-sequence token proven.

    Args:
        backend: one of `BACKENDS`.
        weights: the folder, with safetensors weights and a tokenizer.
        settings: ``dtype``, ``seed``, ``batch_tokens``, ``max_length``; see `from_folder` of the backend for all.

    Raises:
        MergebenchError: the backend is not known or not installed, or the folder or a setting does not suit it.
    """
    if backend == "transformers":
        from mergebench.evaluation.backends.transformers import TransformersLanguageModel

        lm: LanguageModel = TransformersLanguageModel.from_folder(weights, **settings)
    elif backend == "vllm":
        from mergebench.evaluation.backends.vllm import VllmLanguageModel

        lm = VllmLanguageModel.from_folder(weights, **settings)
    else:
        raise MergebenchError(f"evaluation.backend is {backend!r}; {nearest(backend, list(BACKENDS))}.")
    lm.preflight()
    return lm
