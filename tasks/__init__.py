"""The steps of a model's life: pure packages that decide, above them the steps with input and output. No Prefect."""
