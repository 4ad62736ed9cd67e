"""Fetches models of the reference tier from the Hugging Face hub.

Here: one revision, its files, and a record of their hashes. Not here: packaged weights.

A branch moves: the commit that was fetched first is recorded beside the files, and holds until a
person names another.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from ego_assets.models.packaged.declaration import HubModel
from ego_assets.models.packaged.fetching import Tell
from ego_assets.models.packaged.landing import FetchError, downloads, fetching_below, write
from ego_assets.models.weights import read_sha256, sha256

RECORD = "fetched.json"
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md")


def recorded(root: Path, model: HubModel) -> dict[str, str]:
    """{file: SHA-256, "revision": commit} of what was fetched; empty: nothing was."""
    try:
        found = json.loads((root / model.name / RECORD).read_text())
        return {"revision": found["revision"], **found["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def hub_state(root: Path, model: HubModel, digest: Callable[[Path], str] = sha256) -> str:
    """`there`, `missing`, `damaged` (not what was fetched) or `unrecorded` (put there by hand)."""
    paths = {name: root / model.name / name for name in model.files}
    if not all(path.is_file() for path in paths.values()):
        return "missing"
    known = recorded(root, model)
    if not known:
        return "unrecorded"
    is_same = all(known.get(name) == digest(path) for name, path in paths.items())
    return "there" if is_same else "damaged"


def fetch_model(model: HubModel, root: Path, tell: Tell, revision: str = "") -> bool:
    """Bring a model below `root`; False: it was there already.

    revision: a commit, tag or branch; else the recorded commit, else what is newest. The token is
    read from HF_TOKEN by the hub's own client. Raises FetchError, OSError.
    """
    before = recorded(root, model).get("revision", "")
    wanted = revision or before or "main"
    if hub_state(root, model, read_sha256) == "there" and wanted == before:
        return False
    with fetching_below(root), downloads(root, model.name) as place:
        tell(f"fetching {model.repository}")
        commit, found = _download(model, root, wanted, place)
        for name, path in found.items():
            with path.open("rb") as source:
                write(root / model.name / name, source)
        hashes = {name: read_sha256(root / model.name / name) for name in model.files}
        record = {"repository": model.repository, "revision": commit, "sha256": hashes}
        write(root / model.name / RECORD, io.BytesIO(json.dumps(record, indent=1).encode()))
    return True


def _download(model: HubModel, root: Path, wanted: str, place: Path) -> tuple[str, dict[str, Path]]:
    """Have the hub's client fetch the files into a folder, in which it goes on where it ended.
    Returns (commit, {name: where it is now})."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError
    except ImportError as error:
        raise FetchError(
            f"{model.name} comes from the Hugging Face hub: pip install huggingface_hub first, or "
            f"put its files into {root / model.name}"
        ) from error
    page = f"https://huggingface.co/{model.repository}"
    try:
        api = HfApi()
        info = api.model_info(model.repository, revision=wanted)
        commit = str(info.sha)
        there = {sibling.rfilename for sibling in info.siblings or ()}
        names = [*model.files, *(name for name in _LICENCES if name in there)]
        return commit, {
            name: Path(
                api.hf_hub_download(model.repository, name, revision=commit, cache_dir=place)
            )
            for name in names
        }
    except GatedRepoError as error:
        raise FetchError(
            f"{model.repository} is gated: accept its licence ({model.licence}) at {page}, and "
            "give a token of that account in HF_TOKEN"
        ) from error
    except Exception as error:  # of its transport: another library in each of its major releases
        raise FetchError(
            f"{page} could not be fetched at {wanted}: {type(error).__name__}: {error}. Fetch "
            f"again to go on; without a network, copy {root / model.name} from another machine"
        ) from error
