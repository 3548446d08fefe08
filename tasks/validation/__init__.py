"""A batch before its suite: reading suites, judging frames, and the report. It moves no rows."""
