"""Clip states and the owners of video contents."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "work",
        sa.Column("stage", sa.String(64), primary_key=True),
        sa.Column("unit_id", sa.String(64), primary_key=True),
        sa.Column("shard", sa.String(32), nullable=False),
        sa.Column("video_id", sa.String(16)),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error_class", sa.String(128)),
        sa.Column("error", sa.Text),
        sa.Column("worker", sa.String(128)),
        sa.Column("run_id", sa.String(64)),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("seconds", sa.Float(53)),
        sa.CheckConstraint(
            "state IN ('pending','running','done','failed','quarantined')", name="state_known"
        ),
    )
    op.create_index("work_by_shard", "work", ["shard", "stage", "state"])
    op.create_table(
        "videos",
        sa.Column("video_id", sa.String(16), primary_key=True),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("shard", sa.String(32), nullable=False),
    )
