"""Commands about a model's life: look, ingest, train, check, approve, roll back. How is in the layers below."""
