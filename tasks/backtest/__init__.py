"""A model's history replayed under several policies, by the code that runs live. It changes no live state."""
