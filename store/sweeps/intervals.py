"""Student's t interval of a mean, for the services, which have no scipy."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from frs.evaluation.verdict import Interval

# fmt: off
T_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
    2.0452, 2.0423, 2.0395,
)
# fmt: on
"""97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean of 2 to 32 values; None for fewer."""
    if len(values) < 2:
        return None
    reach = T_QUANTILES[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return Interval(low=mean(values) - reach, high=mean(values) + reach)
