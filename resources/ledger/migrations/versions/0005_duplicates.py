"""Files that were rejected since another one has their content, for when that one is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "duplicates",
        sa.Column("file_id", sa.String(16), primary_key=True),
        sa.Column("shard", sa.String(32), primary_key=True),
        sa.Column("video_id", sa.String(16), nullable=False),
        sa.Column("noted_at", sa.Float(53), nullable=False),
    )
    op.create_index("duplicates_by_video", "duplicates", ["video_id"])
