"""From clean rows to scores, quickly and provably like the fitted pipeline. It knows no protocol and no version."""
