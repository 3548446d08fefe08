"""A definition and a suite proposed from a table, each choice with its reason. Only `placing` writes."""
