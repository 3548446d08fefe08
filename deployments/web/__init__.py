"""The page: every model at a glance, and a person's acts. It reads small rows, calls commands and decides nothing."""
