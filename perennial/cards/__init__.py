"""Model cards: what is known of a version, for people, written when it becomes champion. No judging, no measuring."""
