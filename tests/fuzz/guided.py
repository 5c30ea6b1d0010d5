"""One target, guided by coverage, until the first finding: `python -m tests.fuzz.guided TARGET RUNS SEED FOLDER`."""

import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pydicom", "pynetdicom", "python_multipart", "pacs"]):
    from tests.fuzz.corpus import DICTIONARY
    from tests.fuzz.targets import TARGETS

# An input may take so long, and a process so much memory.
SECONDS, MEGABYTES = 20, 2500


def main() -> None:
    """Write the corpus and begin."""
    name, runs, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    target, seeds = TARGETS[name]
    inputs = folder / "corpus"
    inputs.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(seeds(folder)):
        (inputs / f"seed-{index}").write_bytes(content)
    words = folder / "dictionary"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in DICTIONARY), encoding="ascii"
    )
    warnings.simplefilter("ignore")
    atheris.Setup(
        [sys.argv[0], str(inputs), f"-runs={runs}", f"-seed={seed}", f"-dict={words}", f"-timeout={SECONDS}",
         f"-rss_limit_mb={MEGABYTES}", "-max_len=65536", f"-artifact_prefix={folder}/", "-print_final_stats=1"],
        target,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
