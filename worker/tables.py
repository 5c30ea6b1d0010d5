"""The tables. Times are UTC, paths relative to `data_dir`, bundles named by checksum."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from worker.table_base import Base

UID_LENGTH = 64
# Objects of an exam, by the names that they have here; what else there is stands in `worker.objects`.
SR = "sr"  # the structured report, which every destination gets
NOTICE = "notice"  # that there is no result
RETRACTION = "retraction"  # that what was sent is taken back
ABOUT = (NOTICE, RETRACTION)  # what is sent about results and is none


class Study(Base):
    """A study as its first instance named it."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    patient_id: Mapped[str] = mapped_column(String(256))
    patient_name: Mapped[str] = mapped_column(String(512))
    accession_number: Mapped[str] = mapped_column(String(64))
    study_date: Mapped[str] = mapped_column(String(32))
    description: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime]


class Series(Base):
    """A revision of a series: late instances open the next one.

    completeness: which criterion closed it. precedence: the exam with the earliest comes first; an urgent one
    counts as if it had come earlier. lease_owner: the worker that classifies it now, until lease_until.
    woken_at: when a message last went out for it. scope_rule: the rule that chose it; None where there was none.
    shadow: it is classified and stored, and nothing is sent. instead_of_id: another series of the study, reported
    before this one, which is preferred, had come; no foreign key, for that one may be erased. ended_at: when it was
    rejected or failed. withdrawn_at: when its result was taken back.
    """

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("study_id", "series_uid", "revision"),
        Index("ix_series_state_precedence", "state", "precedence"),
        Index("ix_series_received_at_id", "received_at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    revision: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    patient_id: Mapped[str] = mapped_column(String(256))
    patient_issuer: Mapped[str] = mapped_column(String(256))
    patient_name: Mapped[str] = mapped_column(String(512))
    sender: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(String(256), server_default="")
    kernel: Mapped[str] = mapped_column(String(64), server_default="")
    thickness_mm: Mapped[float | None]
    instance_count: Mapped[int]
    expected_count: Mapped[int | None]
    completeness: Mapped[str | None] = mapped_column(String(32))
    urgent: Mapped[bool]
    precedence: Mapped[datetime | None]
    received_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    reported_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    woken_at: Mapped[datetime | None]
    pixels_removed_at: Mapped[datetime | None]
    scope_rule: Mapped[str | None] = mapped_column(String(64))
    shadow: Mapped[bool] = mapped_column(default=False, server_default=false())
    instead_of_id: Mapped[int | None]
    ended_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]

    study: Mapped[Study] = relationship()
    classification: Mapped["Classification | None"] = relationship(back_populates="series")


class Instance(Base):
    """An instance, under the revision that it came with; later revisions hold it too.

    Of one SOP Instance UID that came with several contents the last row counts.
    """

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("series_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    path: Mapped[str] = mapped_column(String(512))
    size: Mapped[int]
    arrived_at: Mapped[datetime]


class ModelVersion(Base):
    """An imported bundle; at most one is active. parent: the one that it was trained on from.

    battery: what it said of what it must not name, where the bundle does not tell itself. despite: why somebody made
    it active although it had failed there.
    """

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        Index(
            "uq_model_versions_active",
            "active",
            unique=True,
            sqlite_where=text("active"),
            postgresql_where=text("active"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    architecture: Mapped[str] = mapped_column(String(64))
    bundle_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    path: Mapped[str] = mapped_column(String(512))
    metrics: Mapped[dict[str, Any]]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    active: Mapped[bool]
    imported_at: Mapped[datetime]
    imported_by: Mapped[str] = mapped_column(String(128))
    battery: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    despite: Mapped[str | None] = mapped_column(Text)

    parent: Mapped["ModelVersion | None"] = relationship(remote_side="ModelVersion.id", lazy="joined", join_depth=1)


class Promotion(Base):
    """A version that became the active one, after which, by whom and why; undone by a rollback."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    promoted_at: Mapped[datetime]
    promoted_by: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    undone_at: Mapped[datetime | None]


class TrainingRun(Base):
    """A retraining that somebody asked for. stage, done, total: how far it is.

    outcome: what it came to, in a sentence. figures: the comparison with the active model.
    """

    __tablename__ = "training_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    options: Mapped[dict[str, Any]]
    requested_by: Mapped[str] = mapped_column(String(128))
    requested_at: Mapped[datetime]
    stage: Mapped[str] = mapped_column(String(64))
    done: Mapped[int | None]
    total: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str | None] = mapped_column(Text)
    figures: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    finished_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    woken_at: Mapped[datetime | None]


class Classification(Base):
    """What a model said of a revision of a series.

    stated: the verdict's probability, 0 to 1, and 0 without a verdict. verdict_code, verdict_reason: why it is
    indeterminate. distance: of the exam from those that the model knows. limits: what the model's card warns of.
    despite: why somebody made a model active that had failed its battery.
    header: what the report copies from the series. classes: the codes of the classes by name.
    """

    __tablename__ = "classifications"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    software: Mapped[str] = mapped_column(String(32))
    precision: Mapped[str] = mapped_column(String(16))
    operating_point: Mapped[dict[str, Any]]
    classes: Mapped[list[Any]]
    verdict: Mapped[str] = mapped_column(String(64))
    stated: Mapped[float] = mapped_column("certainty")
    probabilities: Mapped[dict[str, float]]
    called: Mapped[dict[str, int]]
    verdict_code: Mapped[str] = mapped_column(String(16))
    verdict_reason: Mapped[str]
    distance: Mapped[float | None]
    limits: Mapped[str] = mapped_column(Text, server_default="")
    despite: Mapped[str | None] = mapped_column(Text)
    header: Mapped[dict[str, Any]]
    notes: Mapped[list[Any]]
    slice_count: Mapped[int]
    slices_classified: Mapped[int]
    seconds: Mapped[float]
    classified_at: Mapped[datetime]

    series: Mapped[Series] = relationship(back_populates="classification")
    model: Mapped[ModelVersion] = relationship()

    @property
    def certainty(self) -> float | None:
        """The probability of the verdict's class; None for an abstention, which is certain of nothing."""
        return self.stated if self.verdict in self.probabilities else None


class SliceResult(Base):
    """One slice of a classification, from foot to head. key_rank: 1 for the most telling slice.

    outlines: the lungs on key slices, polygons of (column, row) in pixels of the source image. activation: of key
    slices, where the evidence for the exam's most probable class comes from, over the network's input.
    """

    __tablename__ = "slice_results"
    __table_args__ = (Index("ix_slice_results_classification_id_position", "classification_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    classification_id: Mapped[int] = mapped_column(ForeignKey("classifications.id"))
    position: Mapped[int]
    sop_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    frame: Mapped[int | None]
    instance_number: Mapped[int | None]
    position_mm: Mapped[float | None]
    geometry: Mapped[dict[str, Any]]
    lung_fraction: Mapped[float | None]
    classified: Mapped[bool]
    probabilities: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    note: Mapped[str | None] = mapped_column(Text)
    key_rank: Mapped[int | None]
    outlines: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    activation: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))


class ChallengerResult(Base):
    """What a challenger said of an exam, in shadow: nothing of it is ever reported.

    verdict: None until it is there, and for an exam that it could not classify (verdict_code, verdict_reason say why).
    attempts: how often it was begun. lease_owner: the worker that classifies it now, until lease_until.
    """

    __tablename__ = "challenger_results"
    __table_args__ = (UniqueConstraint("model_id", "classification_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    classification_id: Mapped[int] = mapped_column(ForeignKey("classifications.id"), index=True)
    attempts: Mapped[int]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    verdict: Mapped[str | None] = mapped_column(String(64))
    probabilities: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    verdict_code: Mapped[str | None] = mapped_column(String(64))
    verdict_reason: Mapped[str | None] = mapped_column(Text)
    distance: Mapped[float | None]
    seconds: Mapped[float | None]
    classified_at: Mapped[datetime | None]


class Report(Base):
    """An object made for a revision; its bytes lie at `path` and never change."""

    __tablename__ = "reports"
    __table_args__ = (UniqueConstraint("series_id", "object", "sop_class_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    object: Mapped[str] = mapped_column(String(16))
    sop_class_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_uid: Mapped[str] = mapped_column(String(UID_LENGTH), unique=True)
    path: Mapped[str] = mapped_column(String(512))
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class Delivery(Base):
    """One object on its way to one destination. The SOP class may fall back, hence it may change.

    attempted: whether it was ever tried, so that the destination may have it; attempts are counted anew on request.
    transaction_uid: of the storage commitment that is waited for.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("series_id", "object", "destination"),
        Index("ix_deliveries_state_next_attempt_at", "state", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    object: Mapped[str] = mapped_column(String(16))
    destination: Mapped[str] = mapped_column(String(64))
    protocol: Mapped[str] = mapped_column(String(16))
    required: Mapped[bool]
    sop_class_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH))
    sop_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    attempted: Mapped[bool] = mapped_column(default=False, server_default=false())
    last_error: Mapped[str | None] = mapped_column(Text)
    next_attempt_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    transaction_uid: Mapped[str | None] = mapped_column(String(UID_LENGTH), index=True)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    woken_at: Mapped[datetime | None]


class Retraction(Base):
    """That the result of an exam is taken back. series_id: its latest revision. grounds: code of the note's title.

    reason_code, reason: as the series has them, until a destination refuses the note.
    """

    __tablename__ = "retractions"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), unique=True)
    grounds: Mapped[str] = mapped_column(String(16))
    reason_code: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(String(128))
    requested_at: Mapped[datetime]


class RejectedInstance(Base):
    """An image that a rejection note names, whether it is here already or not: no exam is classified with it."""

    __tablename__ = "rejected_instances"
    __table_args__ = (UniqueConstraint("study_uid", "sop_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    note_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    study_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    series_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    sop_uid: Mapped[str] = mapped_column(String(UID_LENGTH))
    grounds: Mapped[str] = mapped_column(String(16))
    noted_at: Mapped[datetime]


class Label(Base):
    """What a person says that a series shows."""

    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(UID_LENGTH), index=True)
    label: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]


class AuditEvent(Base):
    """Who did what to which exam or model, and when: append only, the database refuses anything else.

    uid: of events that came from outside the database, so that each comes once. stored_at: when the row was made,
    later than `at` for those.
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(128))
    detail: Mapped[dict[str, Any]]
    uid: Mapped[str | None] = mapped_column(String(32), unique=True, index=True)
    stored_at: Mapped[datetime | None] = mapped_column(default=lambda: datetime.now(UTC))


class AuditCursor(Base):
    """How far the audit trail was sent to a repository."""

    __tablename__ = "audit_cursors"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    event_id: Mapped[int]
