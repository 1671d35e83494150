"""The factor on the weights of all terms over the training steps."""

import math
from dataclasses import dataclass

COSINE_END = 0.05
"""Factor at the last step of a cosine."""


@dataclass(frozen=True)
class WeightSchedule:
    """A linear ramp from 0 to 1 that starts at the calibration, then 1 or a cosine down to `COSINE_END`."""

    ramp_steps: int
    end: int | None = None
    """Step at which a cosine ends; None: the factor stays 1 after the ramp."""

    def factor(self, step: int, ramp_from: int) -> float:
        """Return the factor after `step` completed steps if the ramp starts at `ramp_from`: 0 to 1."""
        ramp = min(1.0, max(0.0, (step - ramp_from) / max(1, self.ramp_steps)))
        start = ramp_from + self.ramp_steps
        if self.end is None or step <= start:
            return ramp
        progress = min(1.0, (step - start) / max(1, self.end - start))
        return COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * progress)) / 2

    def in_ramp(self, step: int, ramp_from: int) -> bool:
        """Return whether the ramp has not ended after `step` completed steps."""
        return step < ramp_from + max(1, self.ramp_steps)
