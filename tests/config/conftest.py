import os

import pytest


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting and no credential comes from the environment."""
    for name in list(os.environ):
        if name.startswith(("CWE_", "CLOUDFLARE_")):
            monkeypatch.delenv(name)
