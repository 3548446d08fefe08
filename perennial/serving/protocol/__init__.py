"""Bytes to clean rows, and scores to bytes: MLflow's protocol and v2, with their refusals. No socket, no model."""
