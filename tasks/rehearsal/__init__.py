"""A definition tried on a file before anything is kept: what would be read, refused, learned and stored. No tables."""
