"""What the decision benchmarks share: sets, replays, policies to compare with, faults. No program is here."""
