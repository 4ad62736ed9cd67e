"""The ledger: clip states in SQLite or Postgres. No Dagster."""

from resources.ledger.ledger import Entry, LateAttemptError, Ledger, State

__all__ = ["Entry", "LateAttemptError", "Ledger", "State"]
