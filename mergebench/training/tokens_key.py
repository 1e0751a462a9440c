"""The name under which the tokens of a training set are kept. The workflow's plan reads it, so nothing heavy is imported."""


def tokens_key(tokenizer: str, template: str, max_length: int) -> str:
    """The folder of everything tokenised by one tokenizer, in one template, cut to one length; bases that agree share it."""
    return f"{tokenizer}-{template}-{max_length}"
