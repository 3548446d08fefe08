"""What a new lock would change in a model's answers, found before it is installed. It upgrades nothing."""
