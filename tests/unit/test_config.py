"""Settings that go together."""

from __future__ import annotations

import pytest

from pemba.config import ServeSettings, load
from pemba.errors import ConfigError

REQUIRED = {
    "database_url": "postgresql://pemba@localhost/pemba",
    "spicedb_endpoint": "localhost:50051",
    "spicedb_key": "k",
    "system_keys": ("s" * 32,),
    "root_secrets": ("r" * 32,),
}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"bootstrap_tenant": "acme"}, "PEMBA_BOOTSTRAP_ADMIN: .* takes a user id"),
        ({"bootstrap_tenant": "acme", "bootstrap_admin": " alice"}, "PEMBA_BOOTSTRAP_ADMIN"),
        ({"bootstrap_tenant": "default", "bootstrap_admin": "alice"}, "PEMBA_BOOTSTRAP_TENANT: .* reserved word"),
        ({"bootstrap_tenant": "Acme", "bootstrap_admin": "alice"}, "PEMBA_BOOTSTRAP_TENANT: takes 3 to 64"),
        (
            {"bootstrap_tenant": "acme", "bootstrap_admin": "alice", "bootstrap_tenant_name": "A\n"},
            "PEMBA_BOOTSTRAP_TENANT_NAME: takes",
        ),
    ],
)
def test_k2_a_first_tenant_that_cannot_be_is_refused_with_the_setting(given, named, monkeypatch) -> None:
    monkeypatch.delenv("PEMBA_SETTINGS_FILE", raising=False)
    with pytest.raises(ConfigError, match=named):
        load(ServeSettings, {**REQUIRED, **given})


def test_k2_a_first_tenant_is_optional_and_takes_a_slug_and_an_admin(monkeypatch) -> None:
    monkeypatch.delenv("PEMBA_SETTINGS_FILE", raising=False)
    assert load(ServeSettings, REQUIRED).bootstrap_tenant == ""
    made = load(ServeSettings, {**REQUIRED, "bootstrap_tenant": "acme", "bootstrap_admin": "alice"})
    assert (made.bootstrap_tenant, made.bootstrap_tenant_name, made.bootstrap_admin) == ("acme", "", "alice")
