"""The address under which stored models name an adopted model: an interface that stays. Code is in `model`."""

from perennial.model.adopted import Adopted

__all__ = ["Adopted"]
