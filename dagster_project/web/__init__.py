"""The UI of a lake: Dagster's webserver behind a guard, and the processes that `ego up` starts."""
