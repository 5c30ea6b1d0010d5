"""Probabilities in percent, as every object states them."""


def percentage(probability: float, decimals: int) -> float:
    """Return a probability (0 to 1) in percent, and never 100 or 0: no model is quite sure, whatever its floats say."""
    smallest = 10.0**-decimals
    return round(min(max(probability * 100, smallest), 100 - smallest), decimals)
