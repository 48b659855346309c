"""The front over real HTTP: accepted means durable, and every refusal says what it is and nothing more."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx2
import pytest
from pyflue_web import webhooks
from pyflue_web.deps import WebDeps
from pyflue_web.serving import listen, serve_until_stopping

from pyflue.bells.local import LocalBell
from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import InboundEvent, RawRequest
from pyflue.channels.signed import SampleMessage, SignedDelivery, signed_delivery
from pyflue.clock import SystemClock
from pyflue.config import ChannelSettings, Secret, Secrets, Settings
from pyflue.dispatches import Admission, QueueLimits, Receipt, Refusal
from pyflue.errors import ConfigurationError, StoreUnavailableError
from pyflue.ids import Ids
from pyflue.mailbox.admit import Admitter
from pyflue.stores.memory import MemoryStore
from pyflue.stores.protocol import DispatchQuery
from tests.waiting import until

SECRETS = {
    "github": Secret("github-secret"),
    "slack": Secret("slack-secret"),
    "standard": Secret("whsec_c3RhbmRhcmQtc2VjcmV0LW9mLXR3ZW50eS1mb3VyLWJ5dGVz"),
}
SETTINGS = Settings(
    channels={
        "github": ChannelSettings(agent="triage", reply="none"),
        "slack": ChannelSettings(agent="triage", reply="none"),
        "standard": ChannelSettings(agent="triage", reply="none", max_body_bytes=2_000),
    }
)


class Front:
    """A front on a memory store, listening on a port of its own."""

    def __init__(self, limits: QueueLimits | None = None) -> None:
        self.store = MemoryStore()
        clock = SystemClock()
        secrets = Secrets(
            github_webhook_secret=SECRETS["github"],
            slack_signing_secret=SECRETS["slack"],
            standard_webhook_secret=SECRETS["standard"],
        )
        self.broker_up: bool | None = None
        self.deps = WebDeps(
            Admitter(self.store, LocalBell(), clock, Ids(clock), limits or QueueLimits()),
            build_channels(SETTINGS.channels, secrets, timeout=5),
            SETTINGS,
            self.store,
            clock,
            Ids(clock),
            asyncio.Event(),
            self._ping,
        )
        self.client = httpx2.AsyncClient()
        self.port = 0

    async def _ping(self) -> bool:
        return self.broker_up is not False

    async def dispatches(self) -> int:
        return len(await self.store.views.dispatches(DispatchQuery(limit=100)))

    async def post(self, delivery: SignedDelivery) -> httpx2.Response:
        return await self.client.post(delivery.path, headers=delivery.headers, content=delivery.body)


@asynccontextmanager
async def running(limits: QueueLimits | None = None) -> AsyncIterator[Front]:
    front = Front(limits)
    listening = listen("127.0.0.1", 0)
    front.port = listening.getsockname()[1]
    serving = asyncio.create_task(serve_until_stopping(front.deps, listening))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", timeout=15) as client:
        front.client = client

        async def answers() -> bool:
            try:
                return (await client.get("/health/live")).status_code == 200
            except httpx2.TransportError:
                return False

        await until(answers)
        yield front
    front.deps.stopping.set()
    await serving


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with running() as front:
        yield front


def delivery(channel: str = "standard", text: str = "hello", delivery_id: str = "d-1") -> SignedDelivery:
    return signed_delivery(channel, SECRETS[channel], SampleMessage(text, delivery_id), datetime.now(UTC))


class BrokenLedger:
    """A ledger that raises what a test says."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        raise self.error


# --- accepted


async def test_a_signed_delivery_is_answered_202_with_the_receipt_of_a_queued_dispatch(front: Front) -> None:
    answer = await front.post(delivery())

    body = answer.json()
    stored = await front.store.views.dispatch(body["dispatch_id"])
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"status", "dispatch_id", "accepted_at", "duplicate"}
    assert (body["status"], body["duplicate"]) == ("accepted", False)
    assert stored is not None
    assert (stored.status, stored.input.text) == ("queued", "hello")
    assert datetime.fromisoformat(body["accepted_at"]) == stored.accepted_at


async def test_a_repeated_delivery_gets_the_first_receipt_and_no_second_dispatch(front: Front) -> None:
    first, second = [(await front.post(delivery())).json() for _ in range(2)]

    assert second == {**first, "duplicate": True}
    assert await front.dispatches() == 1


async def test_a_platform_that_wants_an_empty_200_gets_it_after_the_commit(front: Front) -> None:
    answer = await front.post(delivery("slack"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert await front.dispatches() == 1


async def test_a_handshake_is_answered_and_admits_nothing(front: Front) -> None:
    sent = delivery("github")

    answer = await front.client.post(sent.path, headers={**sent.headers, "x-github-event": "ping"}, content=sent.body)

    assert answer.is_success
    assert await front.dispatches() == 0


async def test_several_events_in_one_request_are_all_admitted_and_listed_in_order(front: Front) -> None:
    one = front.deps.channels["standard"]

    class Batching:
        name, receipt_shape = "standard", "receipt"

        def receive(self, request: RawRequest, now: datetime) -> list[InboundEvent]:
            events = one.receive(request, now)
            assert isinstance(events, list)
            return [*events, *(InboundEvent(f"standard:{n}", (), "more", {}, events[0].destination) for n in range(2))]

    front.deps.channels["standard"] = Batching()  # type: ignore[index]

    body = (await front.post(delivery())).json()

    assert [receipt["duplicate"] for receipt in body["receipts"]] == [False, False, False]
    assert len({receipt["dispatch_id"] for receipt in body["receipts"]}) == 3
    assert await front.dispatches() == 3


async def test_the_trace_a_delivery_belongs_to_is_kept_when_it_is_well_formed(front: Front) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = delivery()
    ids = []
    for number, given in enumerate((trace, "no trace")):
        sent = delivery(delivery_id=f"d-{number}")
        answer = await front.client.post(sent.path, headers={**sent.headers, "traceparent": given}, content=sent.body)
        ids.append(answer.json()["dispatch_id"])

    kept = [await front.store.views.dispatch(one) for one in ids]

    assert [one.traceparent for one in kept if one] == [trace, ""]


# --- refused


def assert_problem(answer: httpx2.Response, status: int, code: str) -> None:
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]


async def test_a_wrong_signature_is_401(front: Front) -> None:
    sent = delivery()

    assert_problem(
        await front.client.post(sent.path, headers=sent.headers, content=sent.body + b" "), 401, "signature_mismatch"
    )
    assert await front.dispatches() == 0


async def test_an_unknown_channel_is_404_and_another_method_405(front: Front) -> None:
    assert_problem(await front.client.post("/webhooks/nothing", content=b"{}"), 404, "channel_unknown")
    assert_problem(await front.client.get("/nothing"), 404, "not_found")
    got = await front.client.get("/webhooks/standard?token=secret")
    assert_problem(got, 405, "method_not_allowed")
    assert got.headers["allow"] == "POST"
    assert_problem(await front.client.post("/health/ready"), 405, "method_not_allowed")


async def test_another_media_type_is_415_and_a_body_that_is_not_json_400(front: Front) -> None:
    sent = delivery()
    headers = {**sent.headers, "content-type": "text/plain"}
    assert_problem(await front.client.post(sent.path, headers=headers, content=sent.body), 415, "media_type")

    assert_problem(
        await front.client.post(
            "/webhooks/standard",
            headers={**_signed_standard(b"not json"), "content-type": "application/json"},
            content=b"not json",
        ),
        400,
        "malformed_request",
    )


def _signed_standard(body: bytes) -> dict[str, str]:
    key = base64.b64decode(SECRETS["standard"].reveal().removeprefix("whsec_"))
    at = str(int(datetime.now(UTC).timestamp()))
    digest = hmac.digest(key, b"d-raw." + at.encode() + b"." + body, "sha256")
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": "d-raw", "webhook-timestamp": at, "webhook-signature": signature}


async def test_another_body_under_the_same_key_is_409(front: Front) -> None:
    await front.post(delivery(text="one"))

    assert_problem(await front.post(delivery(text="two")), 409, "idempotency_conflict")


async def test_a_body_over_the_limit_is_413_whether_its_length_is_declared_or_not(front: Front) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1_000

    assert_problem(await front.client.post("/webhooks/standard", content=b"x" * 2_001), 413, "body_too_large")
    assert_problem(await front.client.post("/webhooks/standard", content=chunks()), 413, "body_too_large")


async def test_a_body_that_never_comes_is_408(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BODY_TIMEOUT", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"POST /webhooks/standard HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")

    status = await reader.readline()

    writer.close()
    assert b" 408 " in status


async def test_a_sender_that_goes_away_admits_nothing_and_harms_nobody(front: Front) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"POST /webhooks/standard HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
    await writer.drain()
    writer.close()

    assert (await front.post(delivery())).status_code == 202
    assert await front.dispatches() == 1


async def test_a_full_queue_is_429_and_says_when_to_come_back() -> None:
    async with running(QueueLimits(per_session=1)) as front:
        await front.post(delivery(delivery_id="d-1"))

        answer = await front.post(delivery(delivery_id="d-2"))

        assert_problem(answer, 429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        assert (await front.post(delivery(delivery_id="d-1"))).json()["duplicate"]


async def test_a_store_that_is_down_is_503_and_says_when_to_come_back(front: Front) -> None:
    front.store.ledger = BrokenLedger(StoreUnavailableError("dsn://user:password@host"))  # type: ignore[assignment]

    answer = await front.post(delivery())

    assert_problem(answer, 503, "store_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "password" not in answer.text


async def test_a_failure_of_ours_is_500_with_a_reference_that_the_log_has_and_no_more(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.store.ledger = BrokenLedger(RuntimeError("internal detail"))  # type: ignore[assignment]

    answer = await front.post(delivery())

    assert_problem(answer, 500, "internal")
    assert "internal detail" not in answer.text
    failure = next(record for record in caplog.records if record.msg == "request.failed")
    assert vars(failure)["pyflue_fields"]["reference"] == answer.json()["reference"]
    assert failure.exc_info


async def test_a_request_logs_one_line_without_its_query_or_body(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sent = delivery(text="a very private question")

    answer = await front.client.post(sent.path + "?token=hidden", headers=sent.headers, content=sent.body)

    lines = [record for record in caplog.records if record.msg == "webhook.answered"]
    fields = vars(lines[0])["pyflue_fields"]
    assert len(lines) == 1
    assert (fields["channel"], fields["status"], fields["code"]) == ("standard", 202, "accepted")
    assert fields["dispatch_id"] == answer.json()["dispatch_id"]
    ours = [repr(vars(record)) for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not any("hidden" in line or "private" in line for line in ours)


# --- health and stopping


async def test_ready_tells_the_store_and_the_broker_apart(front: Front) -> None:
    assert (await front.client.get("/health/ready")).json() == {"status": "ready", "store": "ready", "broker": "ready"}

    front.broker_up = False
    degraded = await front.client.get("/health/ready")

    assert degraded.status_code == 200
    assert degraded.json() == {"status": "degraded", "store": "ready", "broker": "unavailable"}


@pytest.mark.parametrize("hangs", [True, False])
async def test_ready_is_503_within_a_second_or_so_while_the_store_does_not_answer(front: Front, hangs: bool) -> None:
    async def down() -> None:
        if hangs:
            await asyncio.sleep(60)
        raise StoreUnavailableError

    front.store.ready = down  # type: ignore[method-assign]

    async with asyncio.timeout(3):
        answer = await front.client.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "store": "unavailable"}
    assert (await front.client.get("/health/live")).json() == {"status": "live"}


async def test_a_stopping_front_answers_what_it_was_asked_and_then_ends() -> None:
    front = Front()
    ledger = front.store.ledger
    opened = asyncio.Event()

    class Slow:
        async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
            await opened.wait()
            return await ledger.admit(admissions, limits)

    front.store.ledger = Slow()  # type: ignore[assignment]
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    serving = asyncio.create_task(serve_until_stopping(front.deps, listening))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=15) as front.client:
        asking = asyncio.create_task(front.post(delivery()))
        await until(lambda: front.deps.admitter._batches)
        front.deps.stopping.set()
        await until(lambda: _refuses(port))
        assert not serving.done()

        opened.set()

        assert (await asking).status_code == 202
    async with asyncio.timeout(5):
        await serving
    assert await front.dispatches() == 1


async def test_ready_is_503_while_stopping(front: Front) -> None:
    front.deps.stopping.set()

    answer = await front.client.get("/health/ready")

    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_an_address_that_is_taken_is_said_so() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigurationError, match="cannot listen"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="cannot listen"):
        listen("127.0.0.1", 70_000)
