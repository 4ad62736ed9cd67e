"""The state `dropped`: given up by a person."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

STATES = "state IN ('pending','running','done','failed','quarantined','dropped')"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _copy_the_table()
    else:
        op.drop_constraint("state_known", "work", type_="check")
        op.create_check_constraint("state_known", "work", STATES)


def _copy_the_table() -> None:
    """SQLite cannot change a constraint. What is there is named, not looked up: 0.1.0 made the
    table without a name for its constraint."""
    here = sa.Table("work", sa.MetaData(), autoload_with=op.get_bind())
    for constraint in [c for c in here.constraints if isinstance(c, sa.CheckConstraint)]:
        here.constraints.remove(constraint)
    here.append_constraint(sa.CheckConstraint(STATES, name="state_known"))
    with op.batch_alter_table("work", recreate="always", copy_from=here):
        pass
