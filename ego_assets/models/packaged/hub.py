"""Fetches models of the reference tier from the Hugging Face hub.

Here: one revision, its files, and a record of their hashes. Not here: packaged weights.

A branch moves: the commit that was fetched first is recorded beside the files, and holds until a
person names another.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from ego_assets.models.packaged.declaration import HubModel
from ego_assets.models.packaged.fetching import FetchError, Tell, write
from ego_assets.models.weights import sha256
from resources.processes.owned_folders import temporary_folder

RECORD = "fetched.json"
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")


def recorded(root: Path, model: HubModel) -> dict[str, str]:
    """{file: SHA-256, "revision": commit} of what was fetched; empty: nothing was."""
    try:
        found = json.loads((root / model.name / RECORD).read_text())
        return {"revision": found["revision"], **found["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def hub_state(root: Path, model: HubModel) -> str:
    """`there`, `missing`, `damaged` (not what was fetched) or `unrecorded` (put there by hand)."""
    paths = {name: root / model.name / name for name in model.files}
    if not all(path.is_file() for path in paths.values()):
        return "missing"
    known = recorded(root, model)
    if not known:
        return "unrecorded"
    is_same = all(known.get(name) == sha256(path) for name, path in paths.items())
    return "there" if is_same else "damaged"


def fetch_model(model: HubModel, root: Path, tell: Tell, revision: str = "") -> bool:
    """Bring a model below `root`; False: it was there already.

    revision: a commit, tag or branch; else the recorded commit, else what is newest. The token is
    read from HF_TOKEN by the hub's own client. Raises FetchError.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    except ImportError as error:
        raise FetchError(
            f"{model.name} comes from the Hugging Face hub: pip install huggingface_hub first, or "
            f"put its files into {root / model.name}"
        ) from error
    page = f"https://huggingface.co/{model.repository}"
    before = recorded(root, model).get("revision", "")
    wanted = revision or before or "main"
    if hub_state(root, model) == "there" and wanted == before:
        return False
    tell(f"fetching {model.repository}")
    try:
        api = HfApi()
        info = api.model_info(model.repository, revision=wanted)
        commit = str(info.sha)
        there = {sibling.rfilename for sibling in info.siblings or ()}
        licences = [name for name in _LICENCES if name in there]
        with temporary_folder() as place:
            for name in (*model.files, *licences):
                path = api.hf_hub_download(model.repository, name, revision=commit, cache_dir=place)
                with Path(path).open("rb") as source:
                    write(root / model.name / name, source)
    except GatedRepoError as error:
        raise FetchError(
            f"{model.repository} is gated: accept its licence ({model.licence}) at {page}, and "
            "give a token of that account in HF_TOKEN"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise FetchError(f"{page} could not be fetched at {wanted}: {error}") from error
    hashes = {name: sha256(root / model.name / name) for name in model.files}
    record = {"repository": model.repository, "revision": commit, "sha256": hashes}
    write(root / model.name / RECORD, io.BytesIO(json.dumps(record, indent=1).encode()))
    return True
