"""Where the raw file of each unit of video_manifest is, and in which state its bytes were
hashed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "sources",
        sa.Column("unit_id", sa.String(64), primary_key=True),
        sa.Column("shard", sa.String(32), nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("byte_size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("sidecar", sa.Text),
        sa.Column("inputs", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.Float(53)),
        sa.Column("away_until", sa.Float(53)),
        sa.Column("gone_why", sa.Text),
        sa.Column("is_told", sa.Boolean(create_constraint=False), nullable=False),
    )
    op.create_index("sources_by_shard", "sources", ["shard"])
    # A path may be longer than what Postgres holds in a tree.
    op.create_index("sources_by_uri", "sources", ["uri"], postgresql_using="hash")
    op.drop_index("videos_by_uri", "videos")
    op.create_index("videos_by_uri", "videos", ["uri"], postgresql_using="hash")
    op.create_index("sources_by_size", "sources", ["byte_size"])
