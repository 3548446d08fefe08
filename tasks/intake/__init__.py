"""Intake: which rows of a delivery can be read, are there already or contradict others; the quarantine. No suite."""
