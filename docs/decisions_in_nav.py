"""Lists the decisions in the site's navigation, so that a new one needs no second entry."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Append docs/adr to the part `Design` (called by mkdocs)."""
    (design,) = (part["Design"] for part in config.nav if "Design" in part)
    folder = Path(config.docs_dir)
    design += [str(path.relative_to(folder)) for path in sorted(folder.glob("adr/*.md"))]
    return config
