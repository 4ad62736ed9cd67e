"""Raw files as they arrive, the runs asked for them, alerts and what is still to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "raw_files",
        sa.Column("file_id", sa.String(16), primary_key=True),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("byte_size", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("mark", sa.BigInteger, nullable=False),
        sa.Column("duration_s", sa.Float(53)),
        sa.Column("first_seen", sa.Float(53), nullable=False),
        sa.Column("stable_since", sa.Float(53), nullable=False),
        sa.Column("shard", sa.String(32)),
        sa.Column("waiting", sa.Boolean(create_constraint=False), nullable=False),
    )
    op.create_index("raw_files_by_waiting", "raw_files", ["waiting", "mark"])
    op.create_table(
        "run_requests",
        sa.Column("run_key", sa.String(64), primary_key=True),
        sa.Column("shard", sa.String(32), nullable=False),
        sa.Column("wants_run", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("confirmed", sa.Boolean(create_constraint=False), nullable=False),
    )
    op.create_index("run_requests_by_confirmed", "run_requests", ["confirmed", "priority"])
    op.create_table(
        "alerts",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "alert_outbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("channel", sa.String(32), nullable=False),
        sa.Column("notices", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
    )
