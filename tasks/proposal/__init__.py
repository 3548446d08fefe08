"""A definition and a suite proposed from a table, each choice with its reason. No file is read or written here."""
