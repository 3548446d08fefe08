"""Commands that look and change nothing of a model's life: its card, two versions side by side, what it stands on."""
