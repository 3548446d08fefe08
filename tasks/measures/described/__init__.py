"""What can be said of texts and images in a few plain values each, so that checks watch them as they watch numbers."""
