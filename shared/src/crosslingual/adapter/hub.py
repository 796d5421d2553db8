"""Exported folders on the hub: `crosslingual push`, and `--push_to_hub` of a training."""

from dataclasses import dataclass
from pathlib import Path

from crosslingual.folders import check_folder, read_mark

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(kw_only=True)
class PushSettings:
    """Settings of `crosslingual push`.

    Attributes:
        folder: exported folder: an adapter, encoder, model or pipeline.
        hub_model_id: repository on the hub, such as NAME/MODEL; it is made if it is not there.
        private: make the repository private, if it is not there.
    """

    folder: str
    hub_model_id: str
    private: bool = False


def push(settings: PushSettings) -> None:
    """Uploads an exported folder and prints its address."""
    check_login(settings.hub_model_id)
    print(upload(settings.folder, settings.hub_model_id, private=settings.private))


def check_login(model_id: str | None) -> None:
    """Refuses, by a ValueError, an upload that cannot work: without a repository or a login."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not model_id:
        raise ValueError("push_to_hub needs --hub_model_id, such as NAME/MODEL")
    try:
        validate_repo_id(model_id)
    except HFValidationError as error:
        raise ValueError(f"--hub_model_id {model_id!r} names no repository: {error}") from error
    if get_token() is None:
        raise ValueError(f"no login for the hub: {LOGIN}")


def upload(folder: str | Path, model_id: str, *, private: bool = False) -> str:
    """Uploads an exported folder, after comparing its files with its mark.

    Returns:
        The address of the model on the hub.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder was not exported or has changed since, or the hub refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of the library that it calls the hub with

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    if read_mark(folder) is None:
        raise ValueError(f"{folder} is no exported folder: give one that `export` or `train` wrote")
    check_folder(folder)
    api = HfApi(library_name="crosslingual")
    try:
        address = api.create_repo(model_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=model_id, folder_path=folder, commit_message=f"{folder.name} of crosslingual"
        )
    except HTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{model_id} is not uploaded ({reason}); {folder} is whole: {LOGIN}, and try again by "
            f"`crosslingual push {folder} --hub_model_id {model_id}`"
        ) from error
    return str(address)
