"""Files that were rejected since another one has their content; what is to be told of raw files."""

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
    op.create_table(
        "raw_news",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("shard", sa.String(32)),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_autoincrement=True,  # what was told is known by its number, which never comes again
    )
