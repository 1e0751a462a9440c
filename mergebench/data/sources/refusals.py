"""What the hub says no with, as sentences. Used for datasets and for models."""

import contextlib
from collections.abc import Iterator

from mergebench.errors import MergebenchError

HUB = "https://huggingface.co"


@contextlib.contextmanager
def explained(kind: str, name: str) -> Iterator[None]:
    """Turn the hub's exceptions into errors that say what to do.

    Args:
        kind: "dataset" or "model".
        name: its name on the hub.
    """
    import httpx
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError:
        raise gated(kind, name) from None
    except RepositoryNotFoundError:
        raise MergebenchError(f"The hub has no {kind} {name} that you may read; check its name, or log in if it is gated.") from None
    except OfflineModeIsEnabled:
        raise MergebenchError(f"The hub is switched off (HF_HUB_OFFLINE), so the {kind} {name} cannot be fetched; unset it.") from None
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise MergebenchError(f"The {kind} {name} could not be fetched from the hub ({type(error).__name__}); try again later.") from error


def gated(kind: str, name: str) -> MergebenchError:
    """The error about a licence that has not been accepted, or a login that is missing."""
    page = f"{HUB}/datasets/{name}" if kind == "dataset" else f"{HUB}/{name}"
    return MergebenchError(
        f"The {kind} {name} is gated: accept its licence at {page} and log in (`hf auth login`, or HF_TOKEN) "
        "with an account that has access."
    )
