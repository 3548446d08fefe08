"""The loss of rows that have no labels yet: estimated, beside the record of such estimates. No verdict."""
