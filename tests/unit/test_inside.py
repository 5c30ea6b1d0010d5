"""What the listener rests on inside pynetdicom: seen by the tests, and again whenever it starts."""

from pathlib import Path
from typing import Any

import pytest
from pynetdicom import association, dul, fsm

from pacs import inside
from pacs.errors import ListenError
from pacs.listener import Listener
from pacs.spool import Spool


def test_this_version_is_the_one_that_is_relied_on() -> None:
    """Where this fails, read the new loops beside `pacs.reactor` and `pacs.fragments` before the texts are changed."""
    assert inside.changes() == []


def _another(*_given: Any) -> None:
    pass


@pytest.mark.parametrize("where", [(dul.DULServiceProvider, "run_reactor"), (association.Association, "_run_reactor"),
                                   (fsm, "DT_2"), (dul, "_PDU_TYPES")])  # fmt: skip
@pytest.mark.parametrize("gone", [False, True])
def test_a_listener_does_not_start_on_another_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], *, gone: bool
) -> None:
    owner, name = where
    if gone:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, {} if name == "_PDU_TYPES" else _another)
    spool = Spool(tmp_path)
    spool.prepare()
    listener = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=0)
    with pytest.raises(
        ListenError, match=r"The internals of pynetdicom .* are not those .* changed\): install the version"
    ):
        listener.start()
