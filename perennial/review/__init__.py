"""What people were asked about a model's predictions, and what they said. What they are asked is chosen in tasks."""
