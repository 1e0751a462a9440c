"""Prompt templates: how an instruction becomes the text that a model sees, in training, calibration and GRPO.

A template is a chat template in Jinja, so that SFT, GRPO and the evaluation harness render it in the same way.
``chat`` stands for the one that the tokenizer brings; the named ones serve tokenizers without one. A message may carry
an ``input`` beside its ``content``: the text that an instruction is about.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from mergebench.errors import MergebenchError

CHAT = "chat"
_TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n"
_TASK_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\\n\\n"
)
_MARGIN = "\\n" + 8 * " "  # the released code renders from an indented triple-quoted string


def _conversation(user: str, end: str) -> str:
    """A chat template: a user's message becomes `user`, an assistant's its content, `end` and the end-of-sequence token."""
    return (
        "{{- bos_token if bos_token else '' -}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}" + user + "{%- else -%}"
        "{{- message['content'] + '" + end + "' + eos_token -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    )


def _alpaca(task: str, task_with_input: str) -> str:
    return _conversation(
        "{%- if message['input'] -%}"
        "{{- '" + task_with_input + "### Instruction:\\n' + message['content'] + '\\n\\n### Input:\\n' + message['input'] -}}"
        "{%- else -%}"
        "{{- '" + task + "### Instruction:\\n' + message['content'] -}}"
        "{%- endif -%}"
        "{{- '\\n\\n### Response:\\n' -}}",
        end="",
    )


def _taskloader() -> str:
    blank = 2 * _MARGIN
    return _conversation(
        "{{- '" + _TASK_WITH_INPUT.removesuffix("\\n\\n") + blank + "### Instruction:" + _MARGIN + "' + message['content'] -}}"
        "{%- if message['input'] -%}{{- '" + blank + "### Input:" + _MARGIN + "' + message['input'] -}}{%- endif -%}"
        "{{- '" + blank + "### Response:" + _MARGIN + "' -}}",
        end=_MARGIN,
    )


TEMPLATES = {
    # The template with which the released specialists were trained: axolotl's `gpteacher` prompter, which is Alpaca's.
    "alpaca": _alpaca(_TASK, _TASK_WITH_INPUT),
    "alpaca_short": _alpaca("", ""),
    # What the released merging code shows its calibration rows in (`merging/taskloader.py`): it always speaks of an input,
    # and the margin of the source file is part of the text.
    "mergebench_taskloader": _taskloader(),
}
# Templates whose authors put the loss on the whole text and not on the response alone.
WHOLE_TEXT = frozenset({"mergebench_taskloader"})


def use_template(tokenizer: Any, template: str) -> Any:
    """Make `tokenizer.apply_chat_template` render `template`; returns the tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer; changed in memory only.
        template: ``chat`` (the tokenizer's own chat template) or a key of `TEMPLATES`.

    Raises:
        MergebenchError: unknown template, or ``chat`` for a tokenizer that has none.
    """
    if template == CHAT:
        if not tokenizer.chat_template:
            raise MergebenchError(
                f"template 'chat' needs a tokenizer with a chat template, and {tokenizer.name_or_path} has none; "
                f"choose one of {', '.join(TEMPLATES)}."
            )
    elif template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[template]
    else:
        raise MergebenchError(f"unknown template {template!r}; allowed: {CHAT}, {', '.join(TEMPLATES)}.")
    return tokenizer


def template_facts(tokenizer: Any, template: str, *, instruction_tuned: bool | None = None) -> dict[str, Any]:
    """What a model's record says about its template, once `use_template` has set it.

    Returns:
        ``template``, ``template_sha256`` (of the Jinja source), ``loss`` (response | text), and ``template_warning``
        where the choice is likely to be a mistake.
    """
    facts: dict[str, Any] = {
        "template": template,
        "template_sha256": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest(),
        "loss": "text" if template in WHOLE_TEXT else "response",
    }
    if template in WHOLE_TEXT:
        facts["template_warning"] = f"{template} is for fidelity of calibration: specialists trained with it learn its margins."
    elif instruction_tuned and template != CHAT:
        facts["template_warning"] = f"the base is instruction-tuned with a chat template of its own, and learns {template} here."
    return facts


def prompt_text(tokenizer: Any, row: Mapping[str, Any]) -> str:
    """The text of a row's prompt (``prompt`` and, where there is one, ``input``) up to where the response begins."""
    message = {"role": "user", "content": row["prompt"]}
    if row.get("input"):
        if tokenizer.chat_template in TEMPLATES.values():
            message["input"] = row["input"]
        else:  # chat templates know of no input
            message["content"] = f"{row['prompt']}\n\n{row['input']}"
    return str(tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False))


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt up to where the response begins, with exactly one beginning-of-sequence token."""
    return list(tokenizer(prompt_text(tokenizer, {"prompt": prompt}), add_special_tokens=False)["input_ids"])
