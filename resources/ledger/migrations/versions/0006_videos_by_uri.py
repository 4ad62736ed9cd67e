"""The contents of a file are found without a look at all of them."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("videos_by_uri", "videos", ["uri"])
