"""The Hub, asked once whether it has what a word names, in our words.

Its own client and `datasets` ask a Hub that they cannot reach six times in some 20 s, and write its address each time.
"""

from typing import Literal


def check_on_hub(name: str, kind: Literal["model", "dataset"]) -> None:
    """Ask for a repository; with HF_HUB_OFFLINE nobody is asked, and what was loaded before counts.

    Raises: OSError: there is none of this name for this user, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=10)
    except OfflineModeIsEnabled:
        return
    except GatedRepoError:
        raise OSError("its owner lets in only who has asked for it: log in with `hf auth login`") from None
    except (RepositoryNotFoundError, HFValidationError):
        of = {"model": "model", "dataset": "data set"}[kind]
        raise OSError(
            f"the Hub has no {of} of this name: check it; a private one wants a token, as `hf auth login` keeps it"
        ) from None
    except Exception as error:  # each client has errors of its own
        raise OSError(
            "the Hub cannot be reached: check the network; HF_HUB_OFFLINE=1 takes what was loaded before"
        ) from error
