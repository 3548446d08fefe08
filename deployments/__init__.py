"""One YAML per model (its whole definition), and what puts the flows on a schedule."""
