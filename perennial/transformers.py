"""The address under which stored pipelines name our transformers: an interface that stays. The code is in `model`."""

from perennial.model.transformers import DateParts, EmptyColumns, ImageStatistics, TextVectors

__all__ = ["DateParts", "EmptyColumns", "ImageStatistics", "TextVectors"]
