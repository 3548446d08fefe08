"""The map from a champion's score to probability or value: its fit, and which maps a champion has. No gate."""
