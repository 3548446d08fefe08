"""The command line's commands, a module each, imported when it is called. No logic that a flow or the API shares."""
