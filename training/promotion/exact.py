"""Exact tests on counts of patients. Each p-value is one-sided: the chance of as good a count if the claim is false."""

from functools import cache

from scipy.stats import binomtest


@cache
def is_rarer(count: int, of: int, limit: float) -> float:
    """Return the p-value of "fewer than `limit` of all patients are such", of whom `count` were seen in `of`.

    Exact binomial test (Clopper & Pearson 1934). With none in n patients it is (1 - limit)ⁿ.
    """
    return float(binomtest(count, of, limit, alternative="less").pvalue) if of else 1.0


@cache
def is_better(rises: int, falls: int) -> float:
    """Return the p-value of "more patients gain than lose", from those who did one or the other.

    The sign test, which for two outcomes is the exact form of McNemar's (1947).
    """
    return float(binomtest(rises, rises + falls, 0.5, alternative="greater").pvalue) if rises + falls else 1.0


@cache
def highest_share(count: int, of: int, alpha: float) -> float:
    """Return the upper bound of a share, which is exceeded with probability `alpha` at most."""
    return float(binomtest(count, of, alternative="less").proportion_ci(1 - alpha).high) if of else 1.0


@cache
def fewest(limit: float, alpha: float) -> int:
    """Return how many patients can show, where none of them is such, that fewer than `limit` are."""
    count = 1
    while (1 - limit) ** count > alpha:
        count += 1
    return count


@cache
def most(of: int, limit: float, alpha: float) -> int:
    """Return how many of so many patients may be such before fewer than `limit` can no longer be shown; -1: none."""
    count = -1
    while count < of and is_rarer(count + 1, of, limit) <= alpha:
        count += 1
    return count


@cache
def fewest_rises(alpha: float) -> int:
    """Return how many patients must gain, where nobody loses, to show that more gain than lose."""
    count = 1
    while is_better(count, 0) > alpha:
        count += 1
    return count
