"""What a check saw, each in the one form of a signal: of columns, of quality, of maps. No verdict is here."""
