"""What runs, in which order: thin Prefect flows that resolve, call tasks and record."""
