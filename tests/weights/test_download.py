"""Downloads against a local server on loopback that misbehaves in every way real ones do."""

import errno
import hashlib
import threading

import pytest
from local_server import local_server

from s2flib.errors import WeightsError
from s2flib.weights import download as module
from s2flib.weights.download import download

BODY = bytes(range(256)) * 1200  # 307,200 bytes
OTHER = BODY[::-1]
SHA = hashlib.sha256(BODY).hexdigest()
PAGE = b"  <!DOCTYPE html><html><body>Quota exceeded</body></html>"


@pytest.fixture
def server():
    with local_server(BODY) as httpd:
        yield httpd


def get(server, path, sha256=SHA, urls=None):
    return download(urls or [server.url], path, sha256, wait=0)


def leftovers(folder):
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


def test_plain(server, tmp_path):
    path = get(server, tmp_path / "new" / "a.bin")
    assert path.read_bytes() == BODY
    assert leftovers(tmp_path / "new") == {"a.bin"}
    get(server, path)  # already there: no second request
    assert len(server.seen) == 1


def test_truncated_is_resumed_by_range(server, tmp_path):
    server.script = [{"cut": 100_000}, {"cut": 50_000}, {}]
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY
    assert [r for _, r, _ in server.seen] == [None, "bytes=100000-", "bytes=150000-"]


def test_resumes_after_the_process_died(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY[:200_000])
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY
    assert server.seen[0][1] == "bytes=200000-"
    assert leftovers(tmp_path) == {"a.bin"}


def test_complete_part_is_only_renamed(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.seen) == 1


def test_part_longer_than_the_file(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY + b"x")
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY


def test_server_that_ignores_range(server, tmp_path):
    server.script = [{"cut": 100_000}, {"ignore_range": True}]
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY


def test_server_that_answers_another_range(server, tmp_path):
    server.script = [{"cut": 100_000}, {"shift": 7}, {}]
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY


def test_unpinned_resume_needs_the_same_etag(server, tmp_path):
    """The file changed between two tries: nothing of the old one may remain."""
    server.script = [{"cut": 100_000, "etag": '"v1"'}, {"body": OTHER, "etag": '"v2"'}]
    assert get(server, tmp_path / "a.bin", None).read_bytes() == OTHER
    assert server.seen[1][1:] == ("bytes=100000-", '"v1"')


def test_unpinned_resume_with_the_same_etag(server, tmp_path):
    server.script = [{"cut": 100_000, "etag": '"v1"'}, {"etag": '"v1"'}]
    assert get(server, tmp_path / "a.bin", None).read_bytes() == BODY
    assert server.seen[1][1] == "bytes=100000-"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_unpinned_without_proof_starts_over(server, tmp_path, etag):
    server.script = [{"cut": 100_000, "etag": etag}, {"body": OTHER, "etag": etag}]
    assert get(server, tmp_path / "a.bin", None).read_bytes() == OTHER
    assert server.seen[1][1] is None


def test_always_truncated_leaves_only_the_part(server, tmp_path):
    server.script = [{"cut": 10}]
    with pytest.raises(WeightsError, match="broke off"):
        get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == BODY[:50]
    assert not (tmp_path / "a.bin").exists()


def test_empty_answer_is_not_a_file(server, tmp_path):
    server.script = [{"body": b""}]
    with pytest.raises(WeightsError):
        get(server, tmp_path / "a.bin", None)
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("sha256", [SHA, None])
def test_quota_page(server, tmp_path, kind, sha256):
    server.script = [{"body": PAGE, "type": kind}]
    with pytest.raises(WeightsError, match="quota"):
        get(server, tmp_path / "a.bin", sha256)
    assert leftovers(tmp_path) == set()
    assert len(server.seen) == 1  # asking again would not help


def test_quota_page_does_not_destroy_the_part(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY[:1000])
    server.script = [{"body": PAGE, "ignore_range": True}]
    with pytest.raises(WeightsError, match="quota"):
        get(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == BODY[:1000]


def test_wrong_hash(server, tmp_path):
    server.script = [{"body": OTHER}]
    with pytest.raises(WeightsError, match="SHA-256 is not the pinned one"):
        get(server, tmp_path / "a.bin")
    assert leftovers(tmp_path) == set()
    assert len(server.seen) == 2


def test_part_of_another_file_is_found_out(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(OTHER[:1000])
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY
    assert server.seen[1][1] is None  # the second try starts from nothing


def test_second_address(server, tmp_path):
    server.script = [{"status": 404}, {"body": PAGE}, {}]
    urls = [server.url, server.url + "2", server.url + "3"]
    assert get(server, tmp_path / "a.bin", urls=urls).read_bytes() == BODY
    assert [p for p, _, _ in server.seen] == ["/file", "/file2", "/file3"]


def test_busy_server_is_asked_again(server, tmp_path):
    server.script = [{"status": 503}, {"status": 429}, {}]
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY


def test_error_names_the_address_and_the_mend(server, tmp_path):
    server.script = [{"status": 403}]
    with pytest.raises(WeightsError) as e:
        get(server, tmp_path / "a.bin")
    assert server.url in str(e.value) and "403" in str(e.value) and str(tmp_path / "a.bin") in str(e.value)


def test_unknown_length(server, tmp_path):
    server.script = [{"no_length": True}]
    assert get(server, tmp_path / "a.bin").read_bytes() == BODY  # the hash proves it complete
    with pytest.raises(WeightsError, match="size"):
        get(server, tmp_path / "b.bin", None)
    assert not (tmp_path / "b.bin").exists()


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match="no connection"):
        get(server, tmp_path / "a.bin")


def test_two_at_once_download_once(server, tmp_path):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(get(server, tmp_path / "a.bin").read_bytes())) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [BODY] * 4 and len(server.seen) == 1


def test_full_disk(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, f):
            self.f = f

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.f.close()

        def __getattr__(self, name):
            return getattr(self.f, name)

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def fake_open(path, mode="r"):
        f = open(path, mode)
        return Full(f) if "w" in mode or "+" in mode else f

    monkeypatch.setattr(module, "open", fake_open, raising=False)
    with pytest.raises(WeightsError, match="disk filled up"):
        get(server, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WeightsError, match="S2F_CACHE"):
        get(server, tmp_path / "file" / "a.bin")


@pytest.mark.parametrize("length", ["many", "-5", "1e6", "12, 12", ""])
def test_malformed_lengths_are_a_sentence(server, tmp_path, length):
    server.script = [{"headers": {"Content-Length": length}}]
    with pytest.raises(WeightsError, match="malformed Content-Length"):
        get(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "answer",
    [
        {"Content-Range": "bytes 1000-307199/400000", "Content-Length": "306200"},  # the file is longer than it says
        {"Content-Range": "bytes 1000-307199/307200", "Content-Length": "10"},
        {"Content-Range": "bytes 999-307199/307200", "Content-Length": "306201"},  # not what was asked for
        {"Content-Range": "bytes x-y/z", "Content-Length": "306200"},
        {"Content-Length": "306200"},
        {"Content-Range": "bytes 1000-307199/307200", "Content-Length": "306200", "ETag": '"new"'},
    ],
)
def test_a_part_is_continued_only_by_the_same_file(server, tmp_path, answer):
    """Any other 206 answer is not believed: the download starts over, and two files are never spliced."""
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    (tmp_path / "f.part.etag").write_text('"old"')
    server.script = [{"code": 206, "headers": answer, "body": OTHER, "from": 1000}, {"etag": '"new"'}]
    assert get(server, tmp_path / "f", sha256=None).read_bytes() == BODY


def test_a_file_without_end_is_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    server.script = [{"no_length": True}]
    with pytest.raises(WeightsError, match="more than it announced"):
        get(server, tmp_path / "f")


def test_a_trickle_counts_as_broken_off(server, tmp_path, monkeypatch):
    """A byte every few milliseconds never runs into the timeout of a connection, and would take weeks."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(module, "TRIES", 2)
    server.script = [{"pause": 0.01}]
    with pytest.raises(WeightsError, match="broke off"):
        get(server, tmp_path / "f")
    assert server.pieces < 200 and leftovers(tmp_path) <= {"f.part", "f.part.etag"}


def test_headers_that_trickle_are_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(module, "TRIES", 2)
    server.script = [{"raw": b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "pause": 0.01}]
    with pytest.raises(WeightsError):
        get(server, tmp_path / "f")
    assert server.pieces < 200


@pytest.mark.parametrize(
    "answer",
    [
        {"headers": {"Content-Length": "9" * 5000}},
        {"code": 206, "headers": {"Content-Range": f"bytes 0-{'9' * 5000}/*", "Content-Length": "5"}},
        {"code": 302, "headers": {"Location": "http://[::1"}},
        {"code": 302, "headers": {"Location": "http://127.0.0.1:99999/"}},
        {"code": 302, "headers": {"Location": "/file"}},  # for ever
        {"headers": {"Content-Length": "307200", "Content-Encoding": "gzip"}},
    ],
)
def test_absurd_answers_are_one_sentence(server, tmp_path, answer):
    server.script = [answer]
    with pytest.raises(WeightsError) as e:
        get(server, tmp_path / "f", sha256=None)
    assert str(e.value).isprintable() and len(str(e.value)) < 600 and not (tmp_path / "f").exists()


@pytest.mark.parametrize("etag", ['"é"', '"a\r\n b"', '"' + "x" * 9000 + '"'])
def test_an_etag_that_cannot_be_sent_back_is_no_proof(server, tmp_path, etag):
    cut = {"headers": {"Content-Length": str(len(BODY)), "ETag": etag}, "from": 200_000}
    server.script = [cut, {}]
    assert get(server, tmp_path / "f", sha256=None).read_bytes() == BODY
    assert server.seen[1][1:] == (None, None)


def test_a_damaged_validator_is_no_proof(server, tmp_path):
    (tmp_path / "f.part").write_bytes(OTHER[:1000])
    (tmp_path / "f.part.etag").write_bytes(b"\xff\n\0")
    assert get(server, tmp_path / "f", sha256=None).read_bytes() == BODY


def test_a_range_of_an_unknown_whole_is_no_proof(server, tmp_path):
    span = {"code": 206, "headers": {"Content-Range": "bytes 0-99/*", "Content-Length": "100"}, "body": BODY[:100]}
    server.script = [span, {}]
    assert get(server, tmp_path / "f", sha256=None).read_bytes() == BODY
