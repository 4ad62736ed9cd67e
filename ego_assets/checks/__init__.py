"""Asset checks: what is looked at after a table is made."""
