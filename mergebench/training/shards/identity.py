"""Which tokenizer made some tokens: loading one from a weights folder, and a hash of all that decides what it does."""

import hashlib
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError


def load_tokenizer(weights: Path) -> Any:
    """The tokenizer of a weights folder, from its files alone."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(weights, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().partition("\n")[0]
        raise MergebenchError(f"{weights} has no tokenizer that can be loaded ({line}); fetch the base again.") from error


def tokenizer_sha256(tokenizer: Any) -> str:
    """Hash of what decides the token ids: the rules and the vocabulary, and which ids begin and end a sequence.

    The chat template does not count (it has a hash of its own), nor do names and files: two bases whose files differ in
    layout alone share tokens.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules = repr(sorted(tokenizer.get_vocab().items()))
    else:
        backend.no_truncation()
        backend.no_padding()
        rules = backend.to_str()
    return hashlib.sha256(f"{rules}\0{tokenizer.bos_token_id}\0{tokenizer.eos_token_id}".encode()).hexdigest()
