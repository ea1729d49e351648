"""s2f run and s2f fetch: what they list and refuse."""

from commands import refused, s2f

from s2flib.weights import registry


def test_run_refuses_unknown_notebooks(tmp_path):
    refused(s2f("run", "42_dragons", "-o", tmp_path / "out"), "42_dragons")


def test_fetch_lists_and_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    result = s2f("fetch")
    assert result.exit_code == 0 and all(name in result.output for name in registry.REGISTRY)
    assert "not fetched" in result.output
    refused(s2f("fetch", "dragons"), "dragons")
