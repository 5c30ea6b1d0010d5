"""The composition root: from settings to the objects that do the work. Nothing connects before it is used.

Each part is imported where it is made: a command that lists exams loads neither network nor report.
"""

from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from worker.connections import make_destination, make_source, secret, tls_identity
from worker.database import Database
from worker.errors import WorkerError
from worker.registry import Registry
from worker.settings import Settings
from worker.switches import Switch

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from pacs.counts import SharedCounts
    from pacs.destinations import Destination
    from pacs.listener import Listener
    from pacs.retrieval import Source
    from pacs.spool import Spool
    from worker.audit_relay import AuditRelay
    from worker.broker import Broker
    from worker.commitments import CommitmentInbox
    from worker.delivery import DeliveryStage
    from worker.expectation import Expectations
    from worker.identity import IdentityCheck
    from worker.journal import Journal
    from worker.privacy import Identities
    from worker.reports import ReportStore
    from worker.rules import Preference, Rules
    from worker.stages import ClassificationStage
    from worker.sweep import Sweep
    from worker.web.server import HttpServer


# A process that ends waits for a question that is on its way.
_ANSWER_SECONDS = 10.0


class Application:
    """Everything that one process needs, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def database(self) -> Database:
        """The database."""
        return Database(self.settings.database)

    @cached_property
    def broker(self) -> "Broker":
        """The queues."""
        from worker.broker import Broker

        return Broker(self.settings)

    @cached_property
    def registry(self) -> Registry:
        """The model versions."""
        return Registry(self.database, self.settings.data_dir, self.settings.model)

    @cached_property
    def spool(self) -> "Spool":
        """The received instances."""
        from pacs.spool import OnConflict, Spool

        listener = self.settings.listener
        return Spool(
            self.settings.data_dir / "spool",
            min_free=listener.min_free_mb << 20,
            on_conflict=OnConflict(listener.conflicts),
            closed=self.intake_switch.path,
        )

    @cached_property
    def work_switch(self) -> Switch:
        """Stops classification and delivery."""
        return Switch(self.settings.data_dir / "stopped" / "work")

    @cached_property
    def intake_switch(self) -> Switch:
        """Stops the intake."""
        return Switch(self.settings.data_dir / "stopped" / "intake")

    @cached_property
    def identities(self) -> "Identities":
        """What SQL keeps of who a patient is."""
        from worker.privacy import Identities

        key_file = self.settings.privacy.key_file
        return Identities() if key_file is None else Identities.from_file(key_file)

    @cached_property
    def rules(self) -> "Rules":
        """Which exams are taken, and which go ahead."""
        from worker.rules import Rule, Rules

        return Rules([Rule(**rule.model_dump()) for rule in self.settings.rules])

    @cached_property
    def preference(self) -> "Preference":
        """Which series speaks for a study."""
        from worker.rules import Preference

        selection = self.settings.selection
        return Preference(selection.prefer_kernels, keep_others=selection.others == "keep")

    @cached_property
    def journal(self) -> "Journal":
        """The events that wait for the database."""
        from worker.journal import Journal

        return Journal(self.settings.data_dir / "journal")

    @cached_property
    def audit_relay(self) -> "AuditRelay | None":
        """What sends the audit trail to a repository, where one is set."""
        configured = self.settings.audit
        if configured.host is None:
            return None
        from pacs.syslog import Syslog
        from pacs.tls import client_context
        from worker.audit_relay import AuditRelay

        identity = tls_identity(configured.tls)
        tls = None if identity is None else client_context(identity)
        return AuditRelay(self.database, Syslog(configured.host, configured.port, tls), self.settings.listener.ae_title)

    @cached_property
    def commitments(self) -> "CommitmentInbox":
        """The results of storage commitments that wait for the database."""
        from worker.commitments import CommitmentInbox

        return CommitmentInbox(self.settings.data_dir / "commitments" / "results")

    @cached_property
    def destinations(self) -> "dict[str, Destination]":
        """The destinations by name."""
        return {each.name: make_destination(each, self.commitments.put) for each in self.settings.destinations}

    def source(self, name: str, timeout: float = 60) -> "Source":
        """Return one of the archives that can be asked. Raises WorkerError where there is none of that name.

        timeout: seconds to wait for an answer.
        """
        for configured in self.settings.sources:
            if configured.name == name:
                return make_source(configured, self.settings.listener.max_instance_mb << 20, timeout)
        known = ", ".join(source.name for source in self.settings.sources) or "none"
        raise WorkerError(f"There is no source {name} in the settings; known: {known}.")

    @cached_property
    def expectations(self) -> "Expectations | None":
        """How many instances the archive has of a series, where it is to be asked."""
        named = self.settings.listener.expected_from
        if named is None:
            return None
        from worker.expectation import Expectations

        return Expectations(self.source(named, _ANSWER_SECONDS))

    def listener(
        self, part: int = 0, inherited: "socket | None" = None, counts: "SharedCounts | None" = None
    ) -> "Listener":
        """A listener that stores into the spool; of several that share a port, which they inherit, number `part`.

        counts: what several count together.
        """
        from pacs.commitment import CommitmentProvider, CommitmentService, Requestor
        from pacs.listener import Listener, Peer
        from pacs.tls import client_context, server_context
        from pacs.transport import Limits

        configured = self.settings.listener
        identity = tls_identity(configured.tls)
        provider = CommitmentProvider(
            self.spool,
            self._commitment_requests(part),
            ae_title=configured.ae_title,
            ports={
                Requestor(peer.ae_title, str(peer.address)): peer.port
                for peer in self.settings.peers
                if peer.port is not None
            },
            tls=None if identity is None else client_context(identity),
            told=self.journal.committed,
        )
        return Listener(
            self.spool,
            ae_title=configured.ae_title,
            host=configured.host,
            port=configured.port,
            peers=[Peer(peer.ae_title, str(peer.address)) for peer in self.settings.peers],
            associations=configured.max_associations,
            associations_per_peer=configured.max_associations_per_peer,
            limits=Limits(
                negotiation=configured.negotiation_seconds,
                idle=configured.idle_seconds,
                pdu_seconds=configured.idle_seconds,
                pdu=configured.max_pdu_bytes,
                instance=configured.max_instance_mb << 20,
                receiving=2 * configured.max_instance_mb << 20,
                connections=2 * configured.max_associations,
            ),
            tls=None if identity is None else server_context(identity),
            witness=self.journal.witness,
            commitment=CommitmentService(provider, self.commitments.put),
            counts=counts,
            inherited=inherited,
        )

    def prepare_listeners(self) -> None:
        """Leave nothing behind of listeners that ran before, which may have been more."""
        from pacs.durable import sync_folder

        first = self._commitment_requests(0)
        for left in first.glob("*/*.json"):
            part = left.parent.name
            if part.isdecimal() and int(part) >= self.settings.listener.processes:
                left.rename(first / left.name)
                sync_folder(first)

    def _commitment_requests(self, part: int) -> Path:
        """Where a listener keeps what it is asked to commit to: each its own, for each answers what it was asked."""
        requests = self.settings.data_dir / "commitments" / "requests"
        return requests if part == 0 else requests / str(part)

    def shared_counts(self, memory: int, part: int) -> "SharedCounts":
        """What listener number `part` of several counts, forgetting what one before it had counted.

        memory: a descriptor from `SharedCounts.allocate`.
        """
        from pacs.counts import SharedCounts

        configured = self.settings.listener
        return SharedCounts(memory, part=part, processes=configured.processes, slots=configured.max_associations)

    def http_server(self) -> "HttpServer":
        """A server that stores into the spool what comes by STOW-RS."""
        from pacs.tls import server_context
        from worker.web.access import Access
        from worker.web.app import make_app
        from worker.web.server import HttpServer
        from worker.web.stow import StoreLimits, StoreService

        configured, listener = self.settings.http, self.settings.listener
        identity = tls_identity(configured.tls)
        limits = StoreLimits(
            instance=listener.max_instance_mb << 20,
            receiving=2 * listener.max_instance_mb << 20,
            requests=configured.max_requests,
            idle=listener.idle_seconds,
        )
        access = Access(
            {account.name: secret(account.token, account.token_file) for account in configured.accounts},
            with_certificate=identity is not None and identity.authorities is not None,
        )
        service = StoreService(self.spool, access, limits, listener.ae_title, self.journal.witness)
        return HttpServer(
            make_app(self.spool, service),
            host=configured.host,
            port=configured.port,
            header_seconds=listener.negotiation_seconds,
            connections=4 * configured.max_requests,
            tls=None if identity is None else server_context(identity),
        )

    def sweep(self) -> "Sweep":
        """A sweep over spool and database."""
        from worker.assembly import Assembly
        from worker.rejections import RejectionNotes
        from worker.sweep import Sweep

        return Sweep(
            self.settings,
            self.database,
            self.spool,
            self.registry,
            self.broker,
            self.journal,
            self.commitments,
            Assembly(self.settings, self.database, self.spool, self.identities, self.rules, self.expectations),
            self.work_switch,
            self.audit_relay,
            RejectionNotes(self.database, self.spool, follow=self.settings.listener.rejection_notes == "follow"),
        )

    def classification(self, alive: "Callable[[], None]" = lambda: None) -> "ClassificationStage":
        """The stage that classifies; it calls `alive` while slices come through."""
        from worker.challenge import ChallengeStage
        from worker.choice import Choice
        from worker.stages import ClassificationStage

        configured = self.settings.worker
        lease = timedelta(seconds=configured.lease_seconds)
        challenge = ChallengeStage(
            self.database,
            self.registry,
            self.settings.data_dir,
            min_slices=self.settings.selection.min_slices,
            days=configured.challenger_days,
            together=self.settings.together,
            lease=lease,
            alive=alive,
        )
        return ClassificationStage(
            self.database,
            self.registry,
            self.settings.data_dir,
            min_slices=self.settings.selection.min_slices,
            identities=self.identities,
            together=self.settings.together,
            choice=Choice(self.database, self.rules, self.preference, self.identities),
            shadow=self.settings.delivery.shadow,
            lease=lease,
            alive=alive,
            challenge=challenge if configured.challenger else None,
        )

    def reports(self) -> "ReportStore":
        """What is sent for exams."""
        from worker.reports import ReportStore

        return ReportStore(
            self.database,
            self.settings.data_dir,
            language=self.settings.language,
            final=self.settings.completion == "FINAL",
            identities=self.identities,
            identity_check=self.identity_check(),
            rules=self.rules,
            preference=self.preference,
            research=self.settings.delivery.research_probabilities,
        )

    def identity_check(self) -> "IdentityCheck | None":
        """What asks again whose exam it is, where that is set."""
        configured = self.settings.delivery
        if configured.identity_from is None:
            return None
        from worker.identity import IdentityCheck

        return IdentityCheck(self.source(configured.identity_from, _ANSWER_SECONDS), configured.identity_changed)

    def delivery(self) -> "DeliveryStage":
        """The stage that makes and sends reports."""
        from worker.delivery import DeliveryStage

        lease = timedelta(seconds=self.settings.worker.lease_seconds)
        return DeliveryStage(
            self.database,
            self.reports(),
            self.destinations,
            self.settings.destinations,
            lease,
            notices_after=self.settings.notices_after,
        )
