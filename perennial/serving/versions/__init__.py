"""Which versions this process serves, each loaded and checked. It answers no request."""
