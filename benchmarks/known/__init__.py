"""Known sets: real ones out of packages, worlds whose truth is known, and the halves that keep them apart."""
