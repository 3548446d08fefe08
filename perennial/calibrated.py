"""The address under which stored models name our map around a pipeline: an interface that stays. Code is in `model`."""

from perennial.model.calibrated import Recalibrated

__all__ = ["Recalibrated"]
