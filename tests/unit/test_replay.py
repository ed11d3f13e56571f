"""Reading access logs and making events of them; sending meets a small server of the tests."""

import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from footfall.cli.access_log import (
    NOT_PAGES,
    STANDARD_INPUT,
    LogLine,
    Skip,
    UnreadableLog,
    open_log,
    page_path,
    read_line,
)
from footfall.cli.replay import (
    Ordinals,
    Survey,
    event_id,
    events,
    replay,
    report,
    shift,
    survey,
    too_old_hint,
)
from footfall.cli.sending import Sender, SendingFailed, Sent

BROWSER = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def line(
    request: bytes = b"GET / HTTP/1.1",
    status: bytes = b"200",
    *,
    address: bytes = b"192.0.2.1",
    time: bytes = b"17/May/2015:10:05:03 +0000",
    size: bytes = b"1024",
    referrer: bytes = b"-",
    user_agent: bytes = BROWSER,
) -> bytes:
    return b'%s - - [%s] "%s" %s %s "%s" "%s"\n' % (
        address,
        time,
        request,
        status,
        size,
        referrer,
        user_agent,
    )


def readable(text: bytes) -> LogLine:
    result = read_line(text)
    assert isinstance(result, LogLine)
    return result


def path_of(request: bytes, status: bytes = b"200") -> str | Skip:
    return page_path(readable(line(request, status)))


def test_a_line_gives_its_fields() -> None:
    found = readable(
        line(
            b"GET /blog/a?x=1 HTTP/1.1",
            address=b"2001:db8::1",
            time=b"31/Dec/2015:23:59:58 -0330",
            referrer=b"https://example.com/",
        )
    )
    assert found.address == "2001:db8::1"
    assert found.moment == datetime(2016, 1, 1, 3, 29, 58, tzinfo=UTC)
    assert found.moment.date() == date(2015, 12, 31)
    assert found.referrer == "https://example.com/"
    assert found.user_agent == BROWSER.decode()
    assert not found.text.endswith(b"\n")


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (rb"say \"hello\" (x)", r"say \"hello\" (x)"),
        (rb"ends in a backslash \\", r"ends in a backslash \\"),
        (rb"\x22quoted by nginx\x22", r"\x22quoted by nginx\x22"),
        (b"", ""),
        (b"-", "-"),
        ("Größe".encode(), "Größe"),
        (b"not \xff UTF-8", "not � UTF-8"),
        (b'" 200 5 "x" "y', None),
    ],
)
def test_user_agents_are_taken_as_the_log_has_them(user_agent: bytes, expected: str | None) -> None:
    found = read_line(line(user_agent=user_agent))
    if expected is None:
        assert isinstance(found, Skip) or found.user_agent != user_agent.decode()
    else:
        assert isinstance(found, LogLine)
        assert found.user_agent == expected


@pytest.mark.parametrize(
    "text",
    [
        line(size=b"-"),
        line(size=b"0").replace(b" - - ", b" - frank smith "),
        line().rstrip(b"\n") + b"\r\n",
        line().rstrip(b"\n"),
        line().rstrip(b"\n") + b' "203.0.113.9" 0.004\n',
        line(request=b"-", status=b"408"),
        line(request=rb"\x16\x03\x01", status=b"400"),
    ],
)
def test_variants_of_the_format_are_readable(text: bytes) -> None:
    assert isinstance(read_line(text), LogLine)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"no log at all",
        b'192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5\n',  # common format
        line(time=b"17/Foo/2015:10:05:03 +0000"),
        line(time=b"31/Feb/2015:10:05:03 +0000"),
        line(time=b"17/May/2015:24:05:03 +0000"),
        line(time=b"17/May/2015:10:05:03 +9900"),
        line(time=b"17/May/0000:10:05:03 +0000"),
        line(status=b"OK!"),
        line()[:-10],
    ],
)
def test_what_is_no_combined_log_line_is_unreadable(text: bytes) -> None:
    assert read_line(text) is Skip.UNREADABLE


@given(st.binary())
def test_any_bytes_are_read_or_skipped(text: bytes) -> None:
    result = read_line(text)
    if isinstance(result, LogLine):
        page_path(result)


@given(
    time=st.builds(
        "{:02}/{}/{:04}:{:02}:{:02}:{:02} {}{:04}".format,
        st.integers(0, 99),
        st.sampled_from(["Jan", "Feb", "Dec", "Xyz"]),
        st.sampled_from([0, 1, 1969, 1970, 2015, 2999, 9999]),
        *[st.integers(0, 99)] * 3,
        st.sampled_from("+-"),
        st.integers(0, 9999),
    )
    | st.sampled_from(
        ["31/Dec/9999:23:59:59 -1400", "01/Jan/0001:00:00:00 +1400", "01/Jan/0001:00:00:00 +0000"]
    ),
    shift_to=st.none() | st.sampled_from([date(2015, 1, 1), date(2026, 11, 20)]),
    field=st.binary(max_size=10).map(lambda raw: raw.translate(None, b"\r\n")),
)
def test_lines_of_any_time_are_replayed_or_skipped(time: str, shift_to: date | None, field: bytes) -> None:
    log = line(time=time.encode(), user_agent=field) + line()
    found = survey(io.BytesIO(log))
    assert found.lines == 2
    shifted = list(events(io.BytesIO(log), found.lines, shift(found, shift_to)))
    assert len(shifted) == found.page_views


@given(st.binary(max_size=40).filter(lambda field: b"\n" not in field and b"\r" not in field))
def test_any_user_agent_that_is_escaped_stays_one_field(raw: bytes) -> None:
    escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    assert readable(line(user_agent=escaped)).user_agent == escaped.decode(errors="replace")


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET / HTTP/1.1", "/"),
        (b"GET /a?x=1#y HTTP/1.1", "/a"),
        (b"GET /a#x?y HTTP/1.0", "/a"),
        (b"GET /?feed=/a.xml HTTP/1.1", "/"),
        (b"GET /caf%C3%A9/%2F HTTP/2.0", "/caf%C3%A9/%2F"),
        ("GET /café HTTP/2.0".encode(), "/café"),
        (b"GET /a b c HTTP/1.1", "/a b c"),
        (b"GET //double//slash/ HTTP/1.1", "//double//slash/"),
        (b"GET /without-protocol", "/without-protocol"),
        (rb"GET /quo\"te HTTP/1.1", r"/quo\"te"),
        (b"GET /png HTTP/1.1", "/png"),
        (b"GET /a.png/ HTTP/1.1", "/a.png/"),
        (b"GET /a.pngx HTTP/1.1", "/a.pngx"),
        (b"GET /a.html HTTP/1.1", "/a.html"),
        (b"HEAD / HTTP/1.1", Skip.METHOD),
        (b"get / HTTP/1.1", Skip.METHOD),
        (b"POST / HTTP/1.1", Skip.METHOD),
        (b"-", Skip.METHOD),
        (b"", Skip.METHOD),
        (b"GET", Skip.TARGET),
        (b"GET http://example.com/x HTTP/1.1", Skip.TARGET),
        (b"GET * HTTP/1.1", Skip.TARGET),
        (b"GET ?x HTTP/1.1", Skip.TARGET),
        (b"GET HTTP/1.1", Skip.TARGET),
        (b"GET /robots.txt HTTP/1.1", Skip.NOT_A_PAGE),
        (b"GET /A.PnG?x HTTP/1.1", Skip.NOT_A_PAGE),
        (b"GET /caf\xe9 HTTP/1.1", Skip.ENCODING),
    ],
)
def test_page_path(request_line: bytes, expected: str | Skip) -> None:
    assert path_of(request_line) == expected


@pytest.mark.parametrize("extension", NOT_PAGES)
def test_files_are_no_pages(extension: bytes) -> None:
    assert path_of(b"GET /a" + extension + b" HTTP/1.1") is Skip.NOT_A_PAGE


@pytest.mark.parametrize(
    ("status", "shown"),
    [(b"200", True), (b"304", True), (b"206", False), (b"301", False), (b"404", False)],
)
def test_only_what_was_shown_is_a_view(status: bytes, shown: bool) -> None:
    assert path_of(b"GET /a HTTP/1.1", status) == ("/a" if shown else Skip.STATUS)


def test_gzipped_logs_are_known_by_their_content(tmp_path: Path) -> None:
    for name, content in (("plain.gz", line()), ("packed.log", gzip.compress(line()))):
        (tmp_path / name).write_bytes(content)
        with open_log(tmp_path / name) as log:
            assert list(log) == [line()]
            log.seek(0)
            assert list(log) == [line()]


def test_standard_input_can_be_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BytesIO(gzip.compress(line())))
    monkeypatch.setattr("sys.stdin", piped)
    with open_log(STANDARD_INPUT) as log:
        assert survey(log).page_views == 1
        log.seek(0)
        assert list(log) == [line()]


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with open_log(tmp_path / "empty") as log:
        assert survey(log) == Survey()


def test_a_torn_gzip_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "torn.gz").write_bytes(gzip.compress(line() * 1000)[:-20])
    with pytest.raises(UnreadableLog, match="torn.gz"), open_log(tmp_path / "torn.gz") as log:
        survey(log)


LOG = b"".join(
    [
        line(b"GET /a HTTP/1.1", time=b"17/May/2015:10:00:00 +0000"),
        line(b"GET /style.css HTTP/1.1", time=b"18/May/2015:23:30:00 -0200"),
        line(b"GET /b HTTP/1.1", time=b"18/May/2015:01:00:00 +0000", user_agent=b"-"),
        b"garbage\n",
        line(b"GET /a HTTP/1.1", time=b"17/May/2015:10:00:00 +0000"),
    ]
)


def test_survey_counts_and_finds_the_latest_line() -> None:
    found = survey(io.BytesIO(LOG))
    assert (found.lines, found.page_views) == (5, 3)
    assert found.skipped == {Skip.NOT_A_PAGE: 1, Skip.UNREADABLE: 1}
    assert found.latest == datetime(2015, 5, 18, 23, 30, tzinfo=timezone(timedelta(hours=-2)))


def test_the_day_that_is_shifted_is_the_one_the_line_itself_names() -> None:
    found = survey(io.BytesIO(LOG))
    assert shift(found, date(2026, 11, 20)) == date(2026, 11, 20) - date(2015, 5, 18)
    assert shift(found, None) == timedelta(0)
    assert shift(Survey(), date(2026, 11, 20)) == timedelta(0)


def test_events_carry_the_lines_own_time_moved_by_whole_days() -> None:
    shifted = [event["occurred_at"] for event in events(io.BytesIO(LOG), 5, timedelta(days=4000))]
    plain = [event["occurred_at"] for event in events(io.BytesIO(LOG), 5, timedelta(0))]
    assert plain[1] == "2015-05-18T01:00:00+00:00"
    assert [
        datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
        for later, earlier in zip(shifted, plain, strict=True)
    ] == [timedelta(days=4000)] * 3


def test_a_user_agent_that_is_missing_is_sent_as_such_and_a_missing_referrer_is_not() -> None:
    first, second, _ = events(io.BytesIO(LOG), 5, timedelta(0))
    assert second["user_agent"] == "-"
    assert "referrer" not in first


def test_a_referrer_is_sent_as_the_log_has_it() -> None:
    log = io.BytesIO(line(referrer=b"https://example.com/x?y#z") + line(referrer=b""))
    first, second = events(log, 2, timedelta(0))
    assert first["referrer"] == "https://example.com/x?y#z"
    assert "referrer" not in second


def test_equal_lines_have_ids_of_their_own_that_stay() -> None:
    ids = [event["id"] for event in events(io.BytesIO(LOG), 5, timedelta(0))]
    assert len(set(ids)) == 3
    assert ids == [event["id"] for event in events(io.BytesIO(LOG), 5, timedelta(days=9))]
    assert all(UUID(text).version == 5 for text in ids)


def test_an_id_never_changes_between_releases() -> None:
    assert event_id(b"a line", 1) == UUID("f68f7f5b-807c-5930-887d-bf8d6666f1ae")


def test_a_line_appended_after_the_survey_waits_for_the_next_replay() -> None:
    assert len(list(events(io.BytesIO(LOG + LOG), 5, timedelta(0)))) == 3


@given(st.lists(st.sampled_from([b"a", b"b", b"c"])))
def test_ordinals_number_equal_lines_from_zero(texts: list[bytes]) -> None:
    ordinals = Ordinals()
    assert [ordinals.next(text) for text in texts] == [
        texts[:index].count(text) for index, text in enumerate(texts)
    ]


def test_report_names_what_was_sent_and_skipped() -> None:
    sent = Sent(accepted=3)
    sent.outcomes.update(counted=2, bot=1)
    sent.refused["ip: not an address"] = 1
    text = report(survey(io.BytesIO(LOG)), sent)
    for row in ("counted", "bot", "ip: not an address", "unreadable line", "not a page"):
        assert row in text


def test_events_that_are_too_old_bring_a_hint() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    sent = Sent()
    assert too_old_hint(sent, now) is None
    sent.refused["occurred_at: too old"] = 1
    assert "--shift-to 2026-11-20" in (too_old_hint(sent, now) or "")


class BatchServer(HTTPServer):
    """Answers as the API would, after the troubles it was told to make first."""

    def __init__(self, troubles: list[int], largest: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), BatchHandler)
        self.troubles = troubles  # statuses; 0 drops the connection
        self.largest = largest
        self.seen: list[list[str]] = []
        self.authorizations: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class BatchHandler(BaseHTTPRequestHandler):
    server: BatchServer
    protocol_version = "HTTP/1.1"
    timeout = 2  # a connection that a failed test left open does not hold the server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append([event["id"] for event in body["events"]])
        self.server.authorizations.add(self.headers["Authorization"])
        assert self.path == "/base/api/track/batch"
        if self.server.troubles:
            status = self.server.troubles.pop(0)
            if not status:
                self.close_connection = True
                return
            self.answer(status, {"error": "not now", "code": "unavailable"}, {"Retry-After": "7"})
        elif len(body["events"]) > self.server.largest:
            self.answer(413, {"error": "too large", "code": "too_large"}, {})
        else:
            n = len(body["events"])
            self.answer(200, {"accepted": n, "outcomes": {"counted": n}, "errors": []}, {})

    def answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(payload))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""


@contextmanager
def serving(*troubles: int, largest: int = 1000) -> Iterator[BatchServer]:
    with BatchServer(list(troubles), largest) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Pauses(list[float]):
    """Stands in for time: pausing is what makes it pass."""

    def elapsed(self) -> float:
        return sum(self)


def sender_to(server: BatchServer, pauses: Pauses) -> Sender:
    return Sender(f"{server.url}/base/", "ffk_key", pause=pauses.append, elapsed=pauses.elapsed)


EVENTS = [{"id": str(number)} for number in range(7)]


def test_what_is_refused_for_the_moment_is_sent_again_with_the_same_ids() -> None:
    pauses = Pauses()
    with serving(503, 0, 429, 502) as server:
        sender = sender_to(server, pauses)
        sender.send(EVENTS)
        sender.close()
    assert sender.sent == Sent(accepted=7, outcomes=sender.sent.outcomes)
    assert sender.sent.outcomes == {"counted": 7}
    assert server.seen == [[event["id"] for event in EVENTS]] * 5
    assert server.authorizations == {"Bearer ffk_key"}
    assert [pause == 7 for pause in pauses] == [True, False, True, True]


def test_a_sender_gives_up_when_nothing_goes_on() -> None:
    pauses = Pauses()
    with serving(*[503] * 100) as server:
        sender = sender_to(server, pauses)
        with pytest.raises(SendingFailed, match="took nothing for 120 s: 503: not now"):
            sender.send(EVENTS)
        sender.close()
    assert 100 < pauses.elapsed() <= 120


def test_a_server_that_is_not_there_is_told() -> None:
    with serving() as server:
        url = server.url
    pauses = Pauses()
    sender = Sender(url, "k", pause=pauses.append, elapsed=pauses.elapsed)
    with pytest.raises(SendingFailed, match="refused"):
        sender.send(EVENTS)


def test_a_refused_key_is_not_tried_again() -> None:
    pauses = Pauses()
    with serving(401) as server:
        sender = sender_to(server, pauses)
        with pytest.raises(SendingFailed, match="401: not now"):
            sender.send(EVENTS)
        sender.close()
    assert pauses == []
    assert len(server.seen) == 1


def test_a_batch_that_is_too_large_is_sent_in_parts() -> None:
    with serving(largest=2) as server:
        sender = sender_to(server, Pauses())
        sender.send(EVENTS)
        sender.close()
    assert sender.sent.accepted == 7


def test_an_event_that_is_too_large_by_itself_costs_itself_only() -> None:
    with serving(largest=0) as server:
        sender = sender_to(server, Pauses())
        sender.send(EVENTS)
        sender.close()
    assert sender.sent.accepted == 0
    assert sender.sent.refused == {"larger than the server takes": 7}


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x/", "http://", "http://x:port/"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(SendingFailed, match="address"):
        Sender(url, "k")


def test_replay_sends_batches_of_a_thousand_and_tells_the_bar() -> None:
    log = io.BytesIO(line(b"GET /a HTTP/1.1") * 2500 + line(b"GET /a.css HTTP/1.1"))
    steps: list[int] = []
    with serving() as server:
        sender = sender_to(server, Pauses())
        sent = replay(log, survey(log), sender, None, steps.append)
        sender.close()
    assert steps == [1000, 1000, 500]
    assert sent.accepted == 2500
    assert len({one for batch in server.seen for one in batch}) == 2500
