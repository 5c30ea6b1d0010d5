"""`python -m tests.promotion`: the tables of docs/promotion.md, as Markdown."""

import argparse
import sys

from training.promotion.simulation import CANDIDATES, PATIENTS, brier_gain, rates


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.promotion", description=__doc__)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    few = "a fifth, a twentieth with 5, 20 attempts"
    lines = [
        f"{options.simulations} simulations a cell ({few}), seed {options.seed}; old rule / this rule.",
        "",
        "| candidate | gain of the Brier score | " + " | ".join(f"{count} patients" for count in PATIENTS) + " |",
        "| --- | --- |" + " --- |" * len(PATIENTS),
    ]
    for candidate in CANDIDATES:
        cells = [rates(candidate, count, 1, options.simulations, options.seed) for count in PATIENTS]
        lines.append(f"| {candidate.name} | {brier_gain(candidate):+.4f} | {' | '.join(map(_cell, cells))} |")
    lines += ["", "| candidate | patients | 1 attempt | 5 attempts | 20 attempts |", "| --- | --- | --- | --- | --- |"]
    for candidate in CANDIDATES:
        for count in PATIENTS[2:]:
            cells = [rates(candidate, count, tries, options.simulations // tries, options.seed) for tries in (1, 5, 20)]
            lines.append(f"| {candidate.name} | {count} | {' | '.join(map(_cell, cells))} |")
    print("\n".join(lines))  # noqa: T201
    return 0


def _cell(pair: tuple[float, float]) -> str:
    return " / ".join(f"{100 * rate:.1f} %" for rate in pair)


if __name__ == "__main__":
    sys.exit(main())
