"""`make chaos`: a run of many series, with its table as Markdown."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Run, run


def table(result: Run) -> str:
    """Return what a run came to, as Markdown."""
    account = result.account
    kind = "Redis, PostgreSQL, Orthanc" if result.servers else "embedded broker, SQLite, the archive of this project"
    lines = [
        f"{kind}; seed {result.seed}; {result.seconds:.0f} s.",
        "",
        "| series | instances acknowledged | reports at the PACS | refused or cut sendings | restarts |",
        "| --- | --- | --- | --- | --- |",
        f"| {account.series} | {account.instances} | {account.reports} | {result.refused} | {result.restarts} |",
        "",
        "| stage | fault | times |",
        "| --- | --- | --- |",
        *(f"| {stage} | {name} | {count} |" for (stage, name), count in sorted(result.faults.items())),
        "",
        "| faults | " + " | ".join(result.by_stage()) + " | lost | doubled | wrong |",
        "| --- |" + " --- |" * (len(result.by_stage()) + 3),
        f"| {sum(result.faults.values())} | "
        + " | ".join(map(str, result.by_stage().values()))
        + f" | **{len(account.lost)}** | **{len(account.doubled)}** | **{len(account.wrong)}** |",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run; 0 only where all faults were done, and nothing was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedded", action="store_true", help="SQLite and the embedded broker")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        result = run(
            options.keep or Path(temporary), seed=options.seed, series=options.series, slices=options.slices,
            faults=options.faults, servers=not options.embedded, patience=120,
            say=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
        )  # fmt: skip
    print(table(result))  # noqa: T201
    for sentence in (*result.account.lost, *result.account.doubled, *result.account.wrong):
        print(sentence, file=sys.stderr)  # noqa: T201
    done, each = sum(result.faults.values()), min(result.by_stage().values())
    if done < options.faults or each < options.faults // (2 * len(result.by_stage())):
        print(f"{done} of {options.faults} faults were done, {each} in some stage.", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if result.account.clean else 1


if __name__ == "__main__":
    sys.exit(main())
