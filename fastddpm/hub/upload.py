"""A saved folder on its way to the Hub: names and token first, then one commit of the folder's own files."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from fastddpm.hub.card import write_card
from fastddpm.hub.folder import PUBLISHED, forget_origin, published_files, stage

LOGIN = "set HF_TOKEN, or run `hf auth login`, with a token that may write"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Pushed:
    """Outcome of a push."""

    url: str
    """address of the repository"""
    commit: str
    """SHA of the revision's newest commit"""
    changed: bool
    """False: the same was there already, and no commit was made"""


def check_names(repo_id: str, revision: str | None) -> None:
    """Raises: ValueError: no name of a model on the Hub, or of a branch."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name for a model on the Hub ({error}); wanted user/name") from None
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} names no owner; wanted user/name, or organization/name")
    if revision is not None and (
        not _REVISION.fullmatch(revision) or ".." in revision or revision.endswith((".lock", "."))
    ):
        raise ValueError(f"{revision!r} is no name for a revision; wanted letters, digits and - _ . /, as in v1.0")


def check_can_push(
    repo_id: str, revision: str | None = None, token: str | None = None, *, create_pr: bool = False
) -> None:
    """Ask the Hub who we are, before anything is trained or uploaded; anybody may propose by `create_pr`.

    Raises: ValueError: a bad name, no token, or one that may not write.  OSError: the Hub cannot be reached.
    """
    check_names(repo_id, revision)
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", token):  # an error of the client would show it
        raise ValueError(f"the token that was given has characters which no token has; {LOGIN}")
    with explained(repo_id):
        found = HfApi().whoami(token=token or True)
    known_as = found.get("auth", {}).get("accessToken", {})
    whose = f"the token ({known_as.get('displayName', 'without a name')}) of {found.get('name')}"
    if known_as.get("role") == "read":
        raise ValueError(f"{whose} may only read; {LOGIN}")
    owners = [found.get("name"), *(organization.get("name") for organization in found.get("orgs", []))]
    known = [str(owner) for owner in owners if owner]
    owner = repo_id.partition("/")[0]
    # a fine-grained token may not be told of every organization that it may write to
    if known_as.get("role") == "write" and not create_pr and owner.lower() not in [name.lower() for name in known]:
        raise ValueError(f"{whose} may not write to {repo_id}; wanted {' or '.join(f'{n}/...' for n in known)}")


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = False,
    revision: str | None = None,
    license: str | None = None,
    evaluation: Path | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    create_pr: bool = False,
    variant: str | None = None,
) -> Pushed:
    """Publish a saved folder, such as that of a run, in one commit; nothing else of the run leaves the machine.

    What the repository's card holds of the user's own stays. A push that broke off goes on with what the Hub lacks.

    Args:
        repo_id: user/name; made if it is not there.
        private: only its owner sees it; a repository that is there is made private too.
        revision: a branch, made if it is not there; None: main.
        license, evaluation: see `write_card`.
        token: None: that of HF_TOKEN, or of the login. It is written nowhere.
        create_pr: propose the commit as a pull request, whose address is returned.
        variant: of the weights in the folder; those of others stay on the Hub.
    Raises: ValueError: no saved pipeline, a link out of the folder, a bad name, no token or one that may not write.
        OSError: the Hub cannot be reached.
    """
    files = published_files(folder)
    api = HfApi(library_name="fastddpm", token=token or True)
    with tempfile.TemporaryDirectory(prefix="fastddpm-push-") as name, explained(repo_id):
        staged = _staged(folder, files, Path(name))
        card = partial(write_card, staged, name=repo_id, license=license, evaluation=evaluation)
        card()  # what is wrong with it is said before anything changes on the Hub
        check_can_push(repo_id, revision, token, create_pr=create_pr)
        target = Target(api, repo_id, "model", revision, create_pr)
        url = target.prepare(private)
        card(others=target.card())
        for record in RECORDS:
            (staged / record).unlink(missing_ok=True)
        shutil.rmtree(staged / "evaluation", ignore_errors=True)
        stale = [pattern for pattern in _STALE if variant is None or "safetensors" not in pattern]
        return target.upload(url, staged, commit_message or "Upload a DDPM trained with fastddpm", stale)


@dataclass(frozen=True)
class Target:
    """A revision of a repository on the Hub."""

    api: HfApi
    repo_id: str
    kind: str
    """"model" or "dataset" """
    revision: str | None
    """None: main"""
    create_pr: bool = False

    def prepare(self, private: bool | None) -> str:
        """Make what is not there, and private what is to be.  Returns: the address."""
        url = self.api.create_repo(self.repo_id, repo_type=self.kind, private=private or None, exist_ok=True)
        if private and not self.create_pr and not self.api.repo_info(self.repo_id, repo_type=self.kind).private:
            self.api.update_repo_settings(self.repo_id, repo_type=self.kind, private=True)
        if self.revision is not None:
            self.api.create_branch(self.repo_id, repo_type=self.kind, branch=self.revision, exist_ok=True)
        return str(url)

    def card(self) -> str:
        """README.md as it is on the Hub now, not as a cache has it; empty: there is none."""
        with tempfile.TemporaryDirectory(prefix="fastddpm-card-") as cache:
            try:
                path = self.api.hf_hub_download(
                    self.repo_id, "README.md", repo_type=self.kind, revision=self.revision, cache_dir=cache
                )
            except RemoteEntryNotFoundError:
                return ""
            return Path(path).read_text(encoding="utf-8")

    def upload(self, url: str, folder: Path, message: str, stale: list[str]) -> Pushed:
        """One commit of a folder; what matches `stale` and is not in it goes.  Returns: what came of it."""
        before = self._newest()
        done = self.api.upload_folder(
            repo_id=self.repo_id, repo_type=self.kind, folder_path=folder, revision=self.revision,
            commit_message=message, delete_patterns=stale, create_pr=self.create_pr,
        )  # fmt: skip
        if self.create_pr:
            return Pushed(done.pr_url or url, done.oid, done.pr_url is not None)
        after = self._newest()
        return Pushed(url, after, before != after)

    def _newest(self) -> str:
        return str(self.api.repo_info(self.repo_id, repo_type=self.kind, revision=self.revision).sha)


RECORDS = ("about.json", "data.json", "config.yaml")
"""records that the card is written from; not published"""


_STALE = [pattern for pattern in PUBLISHED if "/" in pattern or pattern == "pipeline.py"]
"""files of an earlier push that go where the new one lacks them; the card's pictures and text are the user's to
remove"""


def _staged(folder: Path, files: list[Path], place: Path) -> Path:
    """The files to publish, and for a while the records that the card is written from, in a folder of their own."""
    for path in [*files, *(Path(name) for name in (*RECORDS, "evaluation/evaluation.json"))]:
        if (folder / path).is_file():
            stage(folder, path, place / path)
    forget_origin(place / "unet" / "config.json")
    return place


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Errors of the Hub and of the way to it, as what to do."""
    try:
        yield
    except (OSError, HTTPError) as error:  # that of whichever HTTP library huggingface_hub has
        raise _in_words(error, repo_id) from None
    except RuntimeError as error:  # huggingface_hub wraps what happens to a large file
        raise _in_words(error.__cause__ or error, repo_id) from None
    except ValueError as error:
        if not str(error).startswith(_NO_CARD):
            raise
        said = "; ".join(line.strip(" -") for line in str(error).removeprefix(_NO_CARD).splitlines()[1:])
        raise ValueError(
            f"the Hub does not take the metadata of the model card ({said}); mend the head of README.md, or --license"
        ) from None


_NO_CARD = "Invalid metadata in README.md"
"""huggingface_hub's words for what the Hub has against a card"""


def _in_words(error: BaseException, repo_id: str) -> BaseException:
    """An error with what to do, `ValueError` where it is the user's to mend; those that are not the Hub's stay."""
    said = _short(error)
    if isinstance(error, LocalTokenNotFoundError):
        return ValueError(f"there is no token for the Hub; {LOGIN}")
    if isinstance(error, OfflineModeIsEnabled):
        return ValueError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    if isinstance(error, RepositoryNotFoundError):
        return ValueError(f"the Hub knows no {repo_id}, or this token may not see it ({said}); {LOGIN}")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            return ValueError(f"the Hub does not accept the token ({said}); {LOGIN}")
        if status == 403:
            return ValueError(f"this token may not write to {repo_id} ({said}); {LOGIN}")
        return OSError(f"the Hub answered with an error ({said}); push again: what arrived is kept")
    if isinstance(error, HTTPError | ConnectionError | LocalEntryNotFoundError):
        return OSError(f"the Hub cannot be reached ({said}); push again when it can: what arrived is kept")
    if isinstance(error, RuntimeError):
        return OSError(f"the upload broke off ({said}); push again: what arrived is kept")
    return error


def _short(error: BaseException) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
