"""What flows and the serving API share: definition, settings, tables, registry, errors; the API; the command line."""

__version__ = "0.1.0"
