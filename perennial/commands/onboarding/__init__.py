"""Commands by which a model comes and goes: init, adopt, remove. What they do is in the layers below."""
