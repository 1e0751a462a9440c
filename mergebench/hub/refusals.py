"""What the hub says no with, as sentences. Used for datasets and for models."""

import contextlib
import errno
from collections.abc import Iterator

from mergebench.errors import MergebenchError

HUB = "https://huggingface.co"
LOGIN = "log in (`hf auth login`, or HF_TOKEN)"


@contextlib.contextmanager
def explained(kind: str, name: str) -> Iterator[None]:
    """Turn the hub's exceptions into errors that say what to do. A full disk is left to `artifacts.full_disk`.

    Args:
        kind: "dataset" or "model".
        name: its name on the hub.
    """
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise gated(kind, name) from None
    except errors.DisabledRepoError:
        raise MergebenchError(f"The hub has switched the {kind} {name} off for everyone; get it from elsewhere as local files.") from None
    except errors.RevisionNotFoundError:
        raise MergebenchError(
            f"The {kind} {name} has not got the revision that was asked for; correct `revision`, or move the lock on with "
            f"`mergebench hub update {name}`."
        ) from None
    except errors.RepositoryNotFoundError:
        raise MergebenchError(f"The hub has no {kind} {name} that you may read; check its name, or {LOGIN} if it is gated.") from None
    except errors.OfflineModeIsEnabled:
        raise MergebenchError(f"The hub is switched off (HF_HUB_OFFLINE), so the {kind} {name} cannot be fetched; unset it.") from None
    except errors.HFValidationError:
        raise MergebenchError(f"{name!r} is not the name of a {kind} on the hub; expected owner/name.") from None
    except errors.HfHubHTTPError as error:
        raise _answer(kind, name, error) from error
    except (httpx.HTTPError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MergebenchError(
            f"The {kind} {name} could not be fetched from the hub ({type(error).__name__}); check that this machine reaches it, "
            "and try again: what has been fetched is kept."
        ) from error


def _answer(kind: str, name: str, error: Exception) -> MergebenchError:
    """The error about an answer that has a status and no class of its own."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return MergebenchError(f"The hub does not accept your token for the {kind} {name}; {LOGIN} again.")
    if status == 403:
        return MergebenchError(
            f"The hub refuses the {kind} {name} to your token (403); give the token the right to read gated repositories, "
            f"and accept the licence at {page(kind, name)}."
        )
    said = f"status {status}" if status else type(error).__name__
    return MergebenchError(f"The {kind} {name} could not be fetched from the hub ({said}); try again later: what has been fetched is kept.")


def gated(kind: str, name: str) -> MergebenchError:
    """The error about a licence that has not been accepted, or a login that is missing."""
    return MergebenchError(
        f"The {kind} {name} is gated: accept its licence at {page(kind, name)} and {LOGIN} with an account that has access."
    )


def page(kind: str, name: str) -> str:
    """The address of a repository for people."""
    return f"{HUB}/datasets/{name}" if kind == "dataset" else f"{HUB}/{name}"
