"""The address under which stored pipelines name our transformers: an interface that stays. The code is in `model`."""

from perennial.model.transformers import EmptyColumns, ImageStatistics, TextVectors

__all__ = ["EmptyColumns", "ImageStatistics", "TextVectors"]
