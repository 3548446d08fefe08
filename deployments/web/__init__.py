"""The page: every model at a glance, and a person's acts. It reads small rows and calls the commands; it decides nothing."""
