"""What training, batch scoring and the API must do alike: features, own types, code, pins. It fits nothing."""
