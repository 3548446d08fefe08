"""Which predictions people look at, how far people agree, and what their labels are worth. Reads and writes nothing."""
