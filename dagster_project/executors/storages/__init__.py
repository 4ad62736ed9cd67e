"""What is ours in how Dagster keeps runs and events."""
