"""Homes that several programs serve from: versions of a model, one of them champion. Nothing is measured here."""
