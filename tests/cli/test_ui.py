"""What `pipeline ui` says about its address before the page is opened."""

from __future__ import annotations

import pytest

from pipeline.cli.ui import warning_without_token
from pipeline.config import HttpSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_an_open_address_without_a_token_is_a_warning(host: str) -> None:
    """Every reader gets 403, and only this terminal can say why."""
    said = warning_without_token(HttpSettings(host=host))
    assert said.startswith("warning: ")
    assert host in said
    assert "also from this host" in said
    assert "PIPELINE_HTTP_TOKEN" in said
    assert warning_without_token(HttpSettings(host=host, token="s3cret")) == ""  # noqa: S106


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_an_address_of_this_host_needs_no_token(host: str) -> None:
    """This is the default, and serves the page without a token."""
    assert warning_without_token(HttpSettings(host=host)) == ""
