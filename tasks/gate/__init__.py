"""Who is let in, on evidence: a challenger, a new map, a newcomer on probation. Pure: no I/O."""
