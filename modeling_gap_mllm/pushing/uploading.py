"""A folder checked and put on the Hub; without `upload`, only checked."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from .folder_checks import card_problems, load_as_stranger, local_paths, set_metadata
from .upload_plan import CARD, METRICS, UploadPlan, plan_upload


_BY_STATUS = {
    401: "the Hub does not accept the login: run `hf auth login` again, with a token that may write",
    403: "the login has no right to write to {repo}: use a token that may write, or a repository of your own",
    404: "the Hub has no {repo}, or does not show it to this login",
}


@dataclass(frozen=True)
class PushReport:
    """What came of `push_folder`.

    Args:
        plan (`UploadPlan`): files that go up, and those that stay.
        loaded (`dict`): what a stranger got: `model`, `parameters`, `processor`.
        notes (`list[str]`): what the owner should know.
        url (`str`, *optional*): the commit; None if nothing was uploaded.
    """

    plan: UploadPlan
    loaded: dict
    notes: list[str]
    url: str | None = None


def push_folder(
    folder: str | Path,
    repo: str,
    upload: bool = False,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    update_card: Callable[[Path, Path], list] | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
) -> PushReport:
    """Check a folder, load it as a stranger would, and, if asked for, upload it.

    What is checked is a copy of the very files that go up. Nothing in the folder is changed.

    Args:
        folder (`str` or `Path`): folder of a model, of a part of one, or of adapters.
        repo (`str`): repository of the Hub, OWNER/NAME; made if need be.
        upload (`bool`, defaults to False): True uploads; False sends nothing.
        private (`bool`, defaults to False): True makes a private repository, and refuses one that is public.
        revision (`str`, *optional*): branch to write to; made if need be, main by default.
        message (`str`, *optional*): message of the commit.
        update_card (callable, *optional*): function (card, folder) that writes the figures of metrics.json into a
            card, as `gap_mllm.evaluation.runner.update_card`; without it the card goes up as it is.
        license (`str`, *optional*): licence of the weights, as the Hub names it, for the card that goes up; by default
            what the card says.
        license_name, license_link (`str`, *optional*): name and address of the licence, where it is "other".
    Returns:
        `PushReport`.
    Raises:
        ValueError: if the repository's name cannot be one, the folder should not go up (all reasons are named), or
            a name or address is given without a licence.
        NotADirectoryError: if there is no such folder.
        OSError: if the Hub cannot be reached, or refuses.

    Example:
        ```python
        >>> from gap_mllm.pushing import push_folder
        >>> report = push_folder(folder, "me/tiny")  # checks only
        >>> report.loaded["model"], report.url
        ('GapMllmForConditionalGeneration', None)

        ```
    """
    validate_repo_id(repo)
    terms = _terms(license, license_name, license_link)
    plan = plan_upload(folder)
    with tempfile.TemporaryDirectory() as work:
        staged = Path(work) / plan.folder.absolute().name
        for name in plan.files:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            if name == CARD:
                shutil.copyfile(plan.folder / name, staged / name)
            else:
                (staged / name).symlink_to((plan.folder / name).absolute())
        if terms and CARD in plan.files:
            set_metadata(staged / CARD, terms)
        problems, notes = card_problems(staged)
        problems += local_paths(staged)
        if not problems and update_card is not None and METRICS in plan.files:
            written = len(update_card(staged / CARD, staged))
            notes.append(f"{CARD} goes up with {written} figures of {METRICS} as its model-index")
        if problems:
            raise ValueError(f"{folder} cannot go up: {'; '.join(problems)}.")
        if repo not in (staged / CARD).read_text(encoding="utf-8"):
            notes.append(f"{CARD} does not name {repo}: does its example load this repository?")
        try:
            loaded = load_as_stranger(staged)
        except ValueError as error:
            raise ValueError(f"{folder} cannot go up: {error}") from None
        url = _upload(staged, repo, private, revision, message) if upload else None
    return PushReport(plan, loaded, notes, url)


def _terms(license, name, link):
    """What the card gets to say of the licence; a name and address of before go with the licence of before."""
    if license is None:
        if name or link:
            raise ValueError("license_name and license_link go with license: give --license other beside them.")
        return {}
    return {"license": license, "license_name": name, "license_link": link}


def _upload(folder, repo, private, revision, message):
    api = HfApi()
    try:
        api.whoami()
        ModelCard.load(folder / CARD).validate()
        repo = api.create_repo(repo, private=private or None, exist_ok=True).repo_id
        if private and not api.repo_info(repo).private:
            raise ValueError(f"{repo} is there, and public; --private cannot hide it: change its settings on the Hub.")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message=message or "Upload with gap-mllm push"
        ).commit_url
    except LocalTokenNotFoundError:
        raise OSError("there is no login for the Hub: run `hf auth login`, or set HF_TOKEN.") from None
    except OfflineModeIsEnabled:
        raise OSError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it.") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        told = _BY_STATUS.get(status, "the Hub refused: " + str(error.server_message or error)).format(repo=repo)
        raise OSError(f"{told}.") from None
    except (HTTPError, ConnectionError) as error:
        raise OSError(f"the Hub cannot be reached ({error}); nothing was committed.") from None
