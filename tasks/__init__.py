"""The steps of a model's life: pure functions first, then the Prefect task that gives them input and output."""
