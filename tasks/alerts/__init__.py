"""Alerts: what stands against a model, joined in one message, and silence until it changes. It knows no channel."""
