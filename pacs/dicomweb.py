"""What every DICOMweb client of ours begins with."""

from pathlib import Path

import requests


def make_session(auth: tuple[str, str] | str | None, verify: bool | Path) -> requests.Session:
    """Return a session. `auth` is (user, password) or a bearer token; `verify` as in requests."""
    session = requests.Session()
    session.verify = verify if isinstance(verify, bool) else str(verify)
    if isinstance(auth, tuple):
        session.auth = auth
    elif auth is not None:
        session.headers["Authorization"] = f"Bearer {auth}"
    return session
