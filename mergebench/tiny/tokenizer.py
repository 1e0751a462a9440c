"""The twins' tokenizer: a byte-level BPE of 512 tokens, trained on the generated corpus."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mergebench.tiny import corpus
from mergebench.tiny.prompts import CHAT_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 512
MAX_LENGTH = 256
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
_DOCUMENTS = 12_000
# Wanted answers only, so that merges are spent on them; habits share nearly all their words.
_MIXTURE = corpus.Mixture(wanted=1.0, plain=0.2, knowledge=0.3)


def build() -> PreTrainedTokenizerFast:
    """Train the tokenizer: deterministic, a few seconds.

    Digits and newlines are tokens of their own: numbers stay aligned for worked arithmetic, and the boundary
    between the wrapper and an answer is a token boundary whatever the answer begins with, so that a prompt tokenised
    alone is a prefix of prompt and answer tokenised together. `<bos>` is added once; padding is on the left.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    texts = (d.context + d.continuation for d in islice(corpus.documents(_MIXTURE, seed=0), _DOCUMENTS))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(texts, trainer)
    fast.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def save(folder: Path) -> None:
    """Write the tokenizer's files to a Hugging Face folder."""
    build().save_pretrained(folder)
