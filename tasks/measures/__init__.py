"""What is measured of scores and columns: metrics, losses, intervals, leakage, profiles. No verdict, no I/O."""
