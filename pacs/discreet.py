"""What may be said of an exception where no patient may be named: libraries quote header values in their messages."""

import traceback

_OURS = frozenset({"pacs", "models", "training", "worker"})


def said(error: BaseException) -> str:
    """Return an exception in words: our own sentences, what the system says, of others their kind and place only."""
    if type(error).__module__.partition(".")[0] in _OURS:
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {'/'.join(frames[-1].filename.split('/')[-2:])}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
