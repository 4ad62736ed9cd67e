"""What a list says of a video, in the sidecar that intake reads beside it.

Its name and its keys are those of the sidecars that people write by hand; this is the one place
that knows them for links.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from ego_assets.consent import CONSENTS, canonical_license
from resources.raw.sidecars import FileBeside

SUFFIX = ".footage.json"


def fault_of(said: Mapping[str, str]) -> list[str]:
    """Why a sidecar cannot say that; empty: it can."""
    consent = said.get("consent")
    return [f"its consent is none of {', '.join(CONSENTS)}"] * (consent not in (None, *CONSENTS))


def sidecar_of_link(name: str, said: Mapping[str, str], license_: str) -> tuple[str, bytes] | None:
    """(name, content) of the sidecar of a video; None if there is nothing to say.

    said: by a list, of the keys `SAID`; license_: as the page says, where the list does not.
    """
    content = dict(said)
    if given := content.get("license") or license_:
        content["license"] = license_expression(given)
    if not content:
        return None
    path = PurePosixPath(name)
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
    return str(path.with_name(f"{path.stem}{SUFFIX}")), text.encode()


def says(found: FileBeside, said: Mapping[str, str]) -> bool:
    """Whether the file beside a video says what a list does, and perhaps more. One that makes no
    sense does not."""
    from ego_assets.videos.footage.sidecar import FootageSidecarError, footage_columns

    wanted = sidecar_of_link("x", said, "")
    if wanted is None:
        return True
    try:
        columns = footage_columns([found])
    except FootageSidecarError:
        return False
    return all(columns[k] == v for k, v in footage_columns([FileBeside(*wanted)]).items() if v)


def license_expression(text: str) -> str:
    """An SPDX license expression; of words that are none, `LicenseRef-` and those words."""
    try:
        return canonical_license(text)
    except ValueError:
        words = re.sub("[^A-Za-z0-9.]+", "-", text).strip("-")[:100]
        return f"LicenseRef-{words or 'unknown'}"
