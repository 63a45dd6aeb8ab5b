"""Which instance leads: elected by Kafka's group protocol as Confluent's registries do, so that a group can hold both.

Members of the group `schema.registry.group.id` have the protocol type `sr`. Each says who it is (JSON: host, port,
scheme, whether it may lead, whether it does); the group's own leader names the registry's: the one that leads already,
or else the smallest URL among those that may. All are told the same.

`elect` and `Identity` are pure. `LeaderElection` is the shell around a Membership; owned by the loop. That two
instances believe to lead at once is made harmless by the log (`term.py`), not by this.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from millstream.core.client import Client
from millstream.core.client.membership import CustomProtocol, JoinedMember, Membership
from millstream.core.config import CONSUMER_CONFIGS, ClientConfig
from millstream.core.wire import ErrorCode, KafkaError
from millstream.schemas.server.settings import RegistryConfig

_logger: Final = logging.getLogger(__name__)

PROTOCOL_TYPE: Final = "sr"
PROTOCOL_NAME: Final = "v0"
_VERSION: Final = 1
NO_ERROR: Final = 0
DUPLICATE_URLS: Final = 1
_RETRY_S: Final = 1.0


class Identity(NamedTuple):
    """Who an instance is, as it says to the others."""

    host: str
    port: int
    scheme: str = "http"
    eligible: bool = True
    leads: bool = False

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def to_json(self) -> dict[str, Any]:
        """Return it as it is sent."""
        return {
            "host": self.host,
            "port": self.port,
            "master_eligibility": self.eligible,
            "scheme": self.scheme,
            "version": _VERSION,
            "leader": self.leads,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Identity:
        """Read what another sent. Raises ValueError."""
        try:
            return cls(
                str(fields["host"]),
                int(fields["port"]),
                str(fields.get("scheme") or "http"),
                bool(fields.get("master_eligibility", True)),
                bool(fields.get("leader", False)),
            )
        except (KeyError, TypeError) as lacking:
            raise ValueError(f"{fields!r} does not say who a registry is: {lacking!r}") from lacking


class Verdict(NamedTuple):
    """What the members of a generation are told: who leads, if anybody may."""

    error: int
    member_id: str | None
    leader: Identity | None

    def encoded(self) -> bytes:
        """Return it as it is sent; what is missing is left out."""
        fields: dict[str, Any] = {"error": self.error}
        if self.member_id is not None and self.leader is not None:
            fields |= {"master": self.member_id, "master_identity": self.leader.to_json()}
        return json.dumps({**fields, "version": _VERSION}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Verdict:
        """Read what the group's leader sent. Raises ValueError."""
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError(f"{data!r} does not say who leads")  # noqa: TRY004  what was read is wrong, not the call
        leader = fields.get("master_identity")
        return cls(
            int(fields.get("error") or NO_ERROR),
            fields.get("master"),
            None if leader is None else Identity.from_json(leader),
        )


def elect(members: Sequence[JoinedMember]) -> Verdict:
    """Name the leader: the eligible member that leads already, if it is one, else the one with the smallest URL."""
    identities: dict[str, Identity] = {}
    for member in members:
        try:
            identities[member.member_id] = Identity.from_json(json.loads(member.metadata))
        except ValueError as unreadable:
            _logger.warning("member %s of the registries' group is none of them: %s", member.member_id, unreadable)
    eligible = sorted((one.url, member_id) for member_id, one in identities.items() if one.eligible)
    leading = [member_id for _, member_id in eligible if identities[member_id].leads]
    error = NO_ERROR if len({one.url for one in identities.values()}) == len(identities) else DUPLICATE_URLS
    if not eligible:
        return Verdict(error, None, None)
    chosen = leading[0] if len(leading) == 1 else eligible[0][1]
    return Verdict(error, chosen, identities[chosen])


class LeaderElection:
    """This instance in the group; a Membership's listener.

    States: UNDECIDED (nobody is known to lead) -> FOLLOWING (another does) | LEADING (`lead` has returned) -> UNDECIDED
    (the group shares anew, or this member was lost).
    """

    def __init__(
        self,
        config: RegistryConfig,
        identity: Identity,
        *,
        lead: Callable[[], Awaitable[None]],
        resign: Callable[[], None],
    ) -> None:
        """`lead` prepares this instance for writing, each time it is elected; `resign` is told when it is over."""
        self.identity = identity
        self._lead = lead
        self._resign = resign
        # Who leads as far as is known; None while that is being decided.
        self.leader: Identity | None = None
        self.is_leading = False
        self._decided = asyncio.Event()
        # Set and replaced when the leader that was known is one no more.
        self._left = asyncio.Event()
        self._leading: asyncio.Task[None] | None = None
        self._rejoining: asyncio.TimerHandle | None = None
        configs: dict[str, str | int | bool] = {
            "group.id": config.string("schema.registry.group.id"),
            # A restarted instance takes the place of what it was before, instead of waiting for it to be given up.
            "group.instance.id": f"registry-{identity.scheme}-{identity.host.replace(':', '.')}-{identity.port}",
            "session.timeout.ms": config.integer("leader.election.session.timeout.ms"),
            "heartbeat.interval.ms": config.integer("leader.election.heartbeat.interval.ms"),
            "max.poll.interval.ms": config.integer("leader.election.session.timeout.ms"),
            "enable.auto.commit": False,
        }
        client_config = ClientConfig.load(CONSUMER_CONFIGS, config.client(CONSUMER_CONFIGS, **configs))
        self._client = Client(client_config)
        self._protocol = CustomProtocol(PROTOCOL_TYPE, self._offers(), lambda _, members: self._assign(members))
        self._membership = Membership(self._client, client_config, self, protocol=self._protocol)

    def start(self) -> None:
        """Join the group."""
        self._membership.begin_poll()
        self._membership.start()

    async def close(self) -> None:
        """Leave it, so that another leads at once."""
        self._step_down()
        if self._rejoining is not None:
            self._rejoining.cancel()
        await self._membership.close(timeout_ms=5_000, leave_group=True)
        if self._leading is not None:
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
        await self._client.close()

    async def known_leader(self, timeout_s: float) -> Identity | None:
        """Return who leads, waiting until that is decided; None where nobody may, or nobody was elected in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._decided.wait()
        except TimeoutError:
            return None
        return self.leader

    async def wait_until_left(self, leader: Identity, timeout_s: float) -> bool:
        """Wait until the group says that `leader` leads no more; return whether it has, in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.leader is leader:
                    await self._left.wait()
        except TimeoutError:
            return False
        return True

    def doubt(self, reason: str) -> None:
        """Have the group elect anew: this instance found that it does not lead any more."""
        self._step_down()
        self._membership.rejoin(reason)

    # What the group tells.

    async def on_assigned(self, assigned: Any) -> None:
        """Somebody was elected."""
        try:
            verdict = Verdict.decode(bytes(assigned))
        except ValueError as error:
            _logger.error("the group's leader named nobody: %s", error)  # noqa: TRY400  the sentence says it
            return
        if verdict.error == DUPLICATE_URLS:
            _logger.error(
                "two registries of one group have the same URL, so nobody leads: give each a host.name of its own"
            )
            self._rejoin_later("two members had one URL")
            return
        if verdict.leader is None:
            _logger.warning("no instance may lead (leader.eligibility): schemas can be read, not written")
        self.leader = verdict.leader
        if verdict.leader is not None and verdict.leader.url == self.identity.url:
            self._leading = asyncio.create_task(self._take_the_lead(), name="take-the-lead")
        else:
            self._decided.set()
        _logger.info("%s leads", "nobody" if self.leader is None else self.leader.url)

    async def on_revoked(self, revoked: Any) -> None:
        """The group shares anew: nobody leads until it has."""
        del revoked
        self._step_down()

    async def on_lost(self, lost: Any) -> None:
        """The group went on without this member."""
        del lost
        self._step_down()

    def on_failed(self, error: Exception) -> None:
        """It can't be in the group as things are."""
        self._step_down()
        if isinstance(error, KafkaError) and error.code is ErrorCode.FENCED_INSTANCE_ID:
            # Its place in the group is named by its URL.
            _logger.error(
                "another registry of this group has the URL %s as well: give each a host.name or host.port of its own",
                self.identity.url,
            )
        else:
            _logger.error("not in the registries' group: %s", error)
        self._rejoin_later("membership failed")

    def _assign(self, members: Sequence[JoinedMember]) -> Mapping[str, bytes]:
        verdict = elect(members).encoded()
        return {member.member_id: verdict for member in members}

    def _offers(self) -> list[tuple[str, bytes]]:
        return [(PROTOCOL_NAME, json.dumps(self.identity.to_json(), separators=(",", ":")).encode())]

    def _say(self, *, leads: bool) -> None:
        """Have the next generation know whether this instance leads."""
        self.identity = self.identity._replace(leads=leads)
        self._protocol.protocols = tuple(self._offers())

    async def _take_the_lead(self) -> None:
        while True:
            try:
                await self._lead()
            except Exception as error:  # noqa: BLE001  whatever it is, somebody has to lead
                _logger.error("elected, but not ready to lead: %s", error)  # noqa: TRY400  the sentence says it
                await asyncio.sleep(_RETRY_S)
            else:
                break
        self._say(leads=True)
        self.is_leading = True
        self._decided.set()

    def _step_down(self) -> None:
        if self._leading is not None:
            self._leading.cancel()
        if self.is_leading:
            self._resign()
            self._say(leads=self._is_in_group)
        self.is_leading = False
        self.leader = None
        self._decided.clear()
        self._left.set()
        self._left = asyncio.Event()

    @property
    def _is_in_group(self) -> bool:
        return self._membership.generation >= 0

    def _rejoin_later(self, reason: str) -> None:
        loop = asyncio.get_running_loop()

        def rejoin() -> None:
            if self._membership.failure is not None:
                self._membership.retry()
            else:
                self._membership.rejoin(reason)

        self._rejoining = loop.call_later(_RETRY_S, rejoin)
