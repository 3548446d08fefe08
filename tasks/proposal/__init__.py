"""A definition and a suite proposed from a table, each choice with its reason. Pure: no file is read or written here."""
