"""What a handful of seeds can tell: means, spreads, and whether a difference stands out from the spread."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

# Two-sided coverage of the interval that decides. 90 %: with three to five seeds a wider one resolves nothing.
COVERAGE = 0.9


@dataclasses.dataclass(frozen=True)
class Difference:
    """Paired differences over seeds: their mean, the half width of its t interval, and how many there are."""

    mean: float
    half: float
    count: int

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1 in the denominator); NaN for a single value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def paired(better: Sequence[float], than: Sequence[float], coverage: float = COVERAGE) -> Difference:
    """The differences `better` - `than` of runs with the same seeds, in the same order.

    The interval is mean +- t(1/2 + coverage/2; n - 1) * s / sqrt(n), Student's; infinite for fewer than two pairs.
    """
    differences = [one - other for one, other in zip(better, than, strict=True)]
    count = len(differences)
    if count < 2:
        return Difference(statistics.mean(differences) if count else math.nan, math.inf, count)
    quantile = student_quantile(0.5 + coverage / 2, count - 1)
    return Difference(statistics.mean(differences), quantile * spread(differences) / math.sqrt(count), count)


def student_quantile(p: float, degrees: int) -> float:
    """The p-quantile, 1/2 <= p < 1, of Student's t with `degrees` degrees of freedom, within 0.01 for p <= 0.975.

    Closed forms for 1 and 2 degrees; above, the expansion around the normal quantile of Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.5. Raises ValueError outside of that.
    """
    if not 0.5 <= p < 1 or degrees < 1:
        raise ValueError(f'no quantile of Student t for p={p}, degrees={degrees}')
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = statistics.NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
