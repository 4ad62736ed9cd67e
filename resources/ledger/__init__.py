"""The ledger: clip states in SQLite or Postgres. No Dagster."""

from resources.ledger.ledger import Attempt, BusyError, Entry, LateAttemptError, Ledger, State

__all__ = ["Attempt", "BusyError", "Entry", "LateAttemptError", "Ledger", "State"]
