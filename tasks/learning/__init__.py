"""From labelled rows to a fitted challenger: estimators, trials, search, fit. It judges and registers nothing."""
