"""What a check tells beside its verdict: statistics, slices, weak segments, what moved. None of it decides anything."""
