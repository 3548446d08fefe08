"""A newcomer on probation, a challenger that waits, and what promotions brought: two models on later rows."""
