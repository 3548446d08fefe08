"""The check of a champion: from data, clock, policy and ledger to a verdict with its reasons. Pure: no I/O."""
