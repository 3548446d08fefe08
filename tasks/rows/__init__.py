"""Rows: from sources and files to one normal form, their labels, and which of them are used for what. No validation."""
