"""What lies in a data set and is not read, in sentences: a class with a misspelt name must not vanish in silence."""

from collections.abc import Iterator
from pathlib import Path

from training.sources import CLASSES, class_name, folders_below, hidden

_NAMES = f"{', '.join(CLASSES)}, and their names in Portuguese and Spanish"


def overlooked(dataset: Path) -> list[str]:
    """Return a sentence for each part of a data set that `find_sources` passes over. A table lists what it means."""
    if not dataset.is_dir():
        return []
    if (dataset / "truth.json").is_file():
        return []  # it lists what is read, and masks lie beside
    return list(_beside_classes(dataset))


def _beside_classes(dataset: Path) -> Iterator[str]:
    loose: list[Path] = []
    for child in sorted(dataset.iterdir()):
        if child.name.startswith("."):
            continue
        if not child.is_dir():
            loose.append(child)
        elif class_name(child.name) is None:
            yield from _unknown(child)
        else:
            yield from _of_class(child)
    if loose:
        yield (
            f"{_counted(len(loose), 'file')} in {dataset} itself, such as {loose[0].name}, "
            f"{'belongs' if len(loose) == 1 else 'belong'} to no class: nothing is read from there."
        )


def _unknown(folder: Path) -> Iterator[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not hidden(path, folder)]
    if not files:
        return
    within = [path for path in folders_below(folder) if class_name(path.name) is not None]
    if within:
        yield (
            f"{folder} is no class, and nothing is read from it; {within[0]} in it is one: give {within[0].parent} as "
            "a data set of its own."
        )
    else:
        yield (
            f"{folder} is none of the classes ({_NAMES}): {_counted(len(files), 'file')} in it "
            f"{'is' if len(files) == 1 else 'are'} not read. Rename it if it is meant."
        )


def _of_class(folder: Path) -> Iterator[str]:
    everything = [path for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in everything if hidden(path, folder)]
    if len(kept) == len(everything):
        yield f"{folder} holds no file that can be read."
    elif kept:
        yield f"{_counted(len(kept), 'hidden file')} in {folder} {'is' if len(kept) == 1 else 'are'} not read."


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
