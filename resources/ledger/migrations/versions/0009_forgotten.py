"""The videos that are never taken in again."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # The release without migrations is taken over table by table.
    if sa.inspect(op.get_bind()).has_table("forgotten"):
        return
    op.create_table(
        "forgotten",
        sa.Column("video_id", sa.String(16), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("byte_size", sa.BigInteger, nullable=False),
        sa.Column("forgotten_at", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("forgotten_by_size", "forgotten", ["byte_size"])
