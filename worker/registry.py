"""The model versions: bundles copied into `data_dir`, their rows, and which one is active."""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from pacs.durable import sync_folder
from worker import audit
from worker.database import Database, now
from worker.errors import NotFoundError, WorkerError
from worker.tables import ModelVersion, Promotion

if TYPE_CHECKING:
    from models.classifier import Classifier

DEMO = "demo"


@dataclass(frozen=True)
class Questions:
    """What a bundle is asked when it comes without answers. exams: of each kind. unknowns: the site's own exams."""

    exams: int = 30
    unknowns: Path | None = None
    progress: Callable[[int, int], None] = lambda _done, _total: None

    def answers(self, bundle: Bundle) -> dict[str, Any] | None:
        """Open a bundle as a worker would, and return its answers; None of one without a guard. Raises BundleError."""
        from models.classifier import Classifier  # OpenVINO, which a command that lists needs not
        from training.battery import ask, is_current

        classifier = Classifier(bundle, asked=True)
        held = bundle.description.battery
        if held is not None and is_current(held):
            return dict(held)
        if bundle.description.guard is None:
            return None
        return ask(classifier, exams=self.exams, unknowns=self.unknowns, progress=self.progress).as_json()


class Registry:
    """The imported bundles. A bundle's files lie under its checksum, so they never change."""

    def __init__(self, database: Database, data_dir: Path, pinned: str | None) -> None:
        """`pinned` is the setting `model`: a version that is used whatever is active."""
        self._database = database
        self._data_dir = data_dir
        self._pinned = pinned

    def import_bundle(
        self,
        source: str,
        *,
        actor: str,
        despite: str = "",
        questions: Questions = Questions(),
    ) -> ModelVersion:
        """Import the bundle in a folder, or the bundled one by the name `demo`; the first becomes active.

        It is opened as a worker would, and asked what it says of what it must not name unless it holds the answers. One
        that fails there does not become active but `despite` it all, with a reason. Importing the same bundle again
        changes nothing. Raises BundleError or WorkerError.
        """
        folder = Path(source)
        if source == DEMO and not folder.is_dir():
            folder = demo_bundle()
        bundle = open_bundle(folder)
        with self._database.read() as session:
            known = _by_sha256(session, bundle.sha256)
        from training.battery import is_current

        if known is not None and (known.battery is None or is_current(known.battery)) and not despite:
            self._keep(bundle)
            return known
        battery = questions.answers(bundle)
        path = self._keep(bundle)
        description = bundle.description
        try:
            with self._database.write() as session:
                known = _by_sha256(session, bundle.sha256)
                if known is not None:
                    known.battery = battery
                    self._first(session, known, despite, actor)
                    return known
                parent = None if description.parent is None else _by_sha256(session, description.parent)
                version = ModelVersion(
                    name=description.name,
                    version=description.version,
                    architecture=description.architecture,
                    bundle_sha256=bundle.sha256,
                    path=str(path.relative_to(self._data_dir)),
                    metrics=dict(description.metrics),
                    parent=parent,
                    active=False,
                    imported_at=now(),
                    imported_by=actor[:128],
                    battery=battery,
                )
                session.add(version)
                session.flush()
                audit.record(session, "model imported", f"{version.name} {version.version}", actor=actor)
                self._first(session, version, despite, actor)
        except IntegrityError as error:
            raise WorkerError(
                f"Another bundle is imported as {description.name} {description.version} already: "
                "give the new one another version."
            ) from error
        return version

    def _first(self, session: Session, version: ModelVersion, despite: str, actor: str) -> None:
        """Make a version active where none ever was. Raises WorkerError where a reason is given and one is active."""
        if session.scalar(select(Promotion.id).limit(1)) is not None:
            if despite:
                raise WorkerError(
                    f"--despite is for the first model: 'reticula models promote {version.name}' with --despite makes "
                    "another one active."
                )
            return
        if may_serve(version) or despite:
            _serve_despite(session, version, despite, actor=actor)
            _activate(session, version, actor=actor, reason=despite or "the first model")

    def active(self, session: Session) -> ModelVersion | None:
        """Return the version that classifies now; None where there is none, or the pinned one is not imported."""
        if self._pinned is None:
            return session.scalar(select(ModelVersion).where(ModelVersion.active))
        try:
            pinned = self.find(session, self._pinned)
        except WorkerError:  # none, or several of which none was promoted
            return None
        return pinned if may_serve(pinned) else None

    def find(self, session: Session, name: str) -> ModelVersion:
        """Return a version by `name`, `name version` or the start of its checksum. Raises NotFoundError.

        Of several versions a plain name means the one that is or last was active: never a candidate that was not
        promoted. Raises WorkerError where none of them ever was.
        """
        plain, _, version = name.replace("@", " ").replace(":", " ").partition(" ")
        query = select(ModelVersion).where(ModelVersion.name == plain).order_by(ModelVersion.id.desc())
        if version:
            query = query.where(ModelVersion.version == version.strip())
        found = list(session.scalars(query))
        if not found and not version and len(name) >= 8:
            found = list(session.scalars(
                select(ModelVersion).where(ModelVersion.bundle_sha256.startswith(name, autoescape=True))
            ))  # fmt: skip
        if not found:
            raise NotFoundError(f"There is no model {name}: see 'reticula models list'.")
        if len(found) == 1:
            return found[0]
        by_id = {row.id: row for row in found}
        chosen = [row for row in found if row.active]
        if not chosen:
            chosen = [by_id[row.model_id] for row in session.scalars(_standing()) if row.model_id in by_id]
        if not chosen:
            raise WorkerError(
                f"There are {len(found)} models {name}: name the version too, as 'reticula models list' does."
            )
        return chosen[0]

    def all(self) -> list[ModelVersion]:
        """Return all versions, the newest first."""
        with self._database.read() as session:
            return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id.desc())))

    def promote(self, name: str, *, actor: str, reason: str = "", despite: str = "") -> ModelVersion:
        """Make a version the active one. despite: why, although it named what it must not.

        Raises NotFoundError, BundleError where it does not open, WorkerError for the plain name of several versions,
        and for one that named what it must not.
        """
        with self._database.write() as session:
            chosen = self.find(session, name)
            same = session.scalars(select(ModelVersion.id).where(ModelVersion.name == chosen.name)).all()
            if name.strip() == chosen.name and len(same) > 1:
                raise WorkerError(
                    f"There are {len(same)} models {name}: name the version too, as '{name} {chosen.version}'."
                )
            if not may_serve(chosen) and not despite:
                raise WorkerError(
                    f"{chosen.name} {chosen.version} is not made active: {(chosen.battery or {})['sentence']} "
                    'Whoever wants it nevertheless says why, with --despite "why"; all that it makes will say so.'
                )
            self.classifier(chosen)
            _serve_despite(session, chosen, despite, actor=actor)
            _activate(session, chosen, actor=actor, reason=reason or despite)
        return chosen

    def promote_after(
        self,
        chosen: ModelVersion,
        *,
        expected: ModelVersion,
        actor: str,
        reason: str,
        also: Callable[[Session], None] = lambda _session: None,
    ) -> bool:
        """Make a version active if `expected` still is, and do `also` with it; say whether."""
        with self._database.write() as session:
            active = session.scalar(select(ModelVersion).where(ModelVersion.active).with_for_update(of=ModelVersion))
            if active is None or active.id != expected.id or not may_serve(chosen):
                return False
            self.classifier(chosen)
            _activate(session, chosen, actor=actor, reason=reason)
            also(session)
        return True

    def rollback(self, *, actor: str) -> ModelVersion:
        """Make the version active that was so before the last promotion, and undo that.

        Raises WorkerError where there was none before, BundleError where its files are not whole.
        """
        with self._database.write() as session:
            last = session.scalar(_standing().limit(1))
            if last is None or last.previous_id is None:
                raise WorkerError("No model was active before this one: there is nothing to go back to.")
            before = session.get_one(ModelVersion, last.previous_id)
            self.classifier(before)
            last.undone_at = now()
            _switch(session, before)
            audit.record(session, "model rolled back", f"{before.name} {before.version}", actor=actor)
        return before

    def candidates(self, session: Session) -> list[ModelVersion]:
        """Return the versions that may classify: the one that shall, then those that were active before it."""
        chosen = self.active(session)
        if chosen is None or self._pinned is not None:
            return [chosen] if chosen is not None else []
        earlier = [row.previous_id for row in session.scalars(_standing()) if row.previous_id is not None]
        rows = {row.id: row for row in session.scalars(select(ModelVersion).where(ModelVersion.id.in_(earlier)))}
        return [chosen, *(rows[each] for each in dict.fromkeys(earlier) if each != chosen.id)]

    def folder(self, version: ModelVersion) -> Path:
        """Return where a version's bundle lies."""
        return self._data_dir / version.path

    def classifier(self, version: ModelVersion) -> "Classifier":
        """Open a version. Raises BundleError."""
        from models.classifier import Classifier  # OpenVINO, which a command that lists needs not

        return Classifier.open(self.folder(version), asked=version.battery is not None)

    def _keep(self, bundle: Bundle) -> Path:
        """Copy the bundle's files to their place under `data_dir`, all or none."""
        target = self._data_dir / "bundles" / bundle.sha256
        if target.is_dir():
            try:
                open_bundle(target)
            except BundleError:
                shutil.rmtree(target)  # damaged: it is copied again
            else:
                return target
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        workshop = target.parent / f".{uuid.uuid4().hex}"
        try:
            shutil.copytree(bundle.folder, workshop)
            if open_bundle(workshop).sha256 != bundle.sha256:
                raise BundleError(f"{bundle.folder} changed while it was copied.")
            workshop.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            if not target.is_dir():  # another import was faster
                raise WorkerError(f"The bundle cannot be copied to {target}: {error.strerror}.") from error
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        return target


def may_serve(version: ModelVersion) -> bool:
    """Whether a version may classify: it passed its battery, or somebody said why it may nevertheless.

    What was imported before there was a battery has no guard, and abstains on everything.
    """
    return version.battery is None or version.battery["passed"] is True or version.despite is not None


def _serve_despite(session: Session, version: ModelVersion, despite: str, *, actor: str) -> None:
    """Keep why a version may classify that failed its battery; one that passed needs no reason."""
    if despite and not may_serve(version):
        version.despite = despite
        name = f"{version.name} {version.version}"
        audit.record(session, "model allowed despite its battery", name, actor=actor, reason=despite)


def _by_sha256(session: Session, sha256: str) -> ModelVersion | None:
    return session.scalar(select(ModelVersion).where(ModelVersion.bundle_sha256 == sha256))


def _standing() -> Select[Promotion]:
    """The promotions that were not undone, the last one first."""
    return select(Promotion).where(Promotion.undone_at.is_(None)).order_by(Promotion.id.desc())


def _activate(session: Session, chosen: ModelVersion, *, actor: str, reason: str) -> None:
    session.scalars(
        select(ModelVersion.id).order_by(ModelVersion.id).with_for_update()
    ).all()  # one promotion at a time
    previous = session.scalar(select(ModelVersion.id).where(ModelVersion.active))
    if previous == chosen.id:
        return
    _switch(session, chosen)
    session.add(
        Promotion(
            model_id=chosen.id,
            previous_id=previous,
            promoted_at=now(),
            promoted_by=actor[:128],
            reason=reason,
        )
    )
    audit.record(session, "model promoted", f"{chosen.name} {chosen.version}", actor=actor, reason=reason)


def _switch(session: Session, chosen: ModelVersion) -> None:
    session.execute(update(ModelVersion).where(ModelVersion.active).values(active=False))
    session.execute(update(ModelVersion).where(ModelVersion.id == chosen.id).values(active=True))


def demo_bundle() -> Path:
    """Return the bundle that comes with the software. It knows phantoms only."""
    return Path(str(resources.files("models"))) / "demo"


def as_json(version: ModelVersion) -> dict[str, Any]:
    """Return a version as scripts read it."""
    return {
        "name": version.name,
        "version": version.version,
        "architecture": version.architecture,
        "bundle_sha256": version.bundle_sha256,
        "active": version.active,
        "parent": None if version.parent is None else f"{version.parent.name} {version.parent.version}",
        "path": version.path,
        "imported_at": version.imported_at.isoformat(),
        "imported_by": version.imported_by,
        "metrics": version.metrics,
        "battery": version.battery,
        "despite": version.despite,
    }
