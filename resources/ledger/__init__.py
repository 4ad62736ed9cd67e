"""The ledger: clip states in SQLite or Postgres. No Dagster."""

from resources.ledger.ledger import Ledger
from resources.ledger.states import Attempt, BusyError, Entry, LateAttemptError, State

__all__ = ["Attempt", "BusyError", "Entry", "LateAttemptError", "Ledger", "State"]
