"""Steps between versions of the ledger's tables (Alembic)."""
