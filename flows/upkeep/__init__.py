"""Flows that keep a model in order beside its life: what goes after its time, what it stands on."""
