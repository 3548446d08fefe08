"""From clean rows to scores, quickly and provably like the fitted pipeline. It knows no protocol and no version."""

ANY_ROWS = 10**9  # up to so many rows a fast path is the quicker one, where it is for any number
