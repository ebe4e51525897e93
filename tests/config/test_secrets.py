"""No message and no repr shows a secret, however mangled the configuration is."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import load as config
from exporter.config.errors import ConfigError

MARK = "s3cr3tMarker"
KEYS = ("api_token", "api_key")

misspelt_keys = st.sampled_from(
    [*KEYS, "api_tokn", "apitoken", "api-token", "API_TOKEN", "api_tokens", "apikey", "api_kee"]
)
secrets: st.SearchStrategy[Any] = st.one_of(
    st.just(MARK),
    st.sampled_from([[MARK], [[MARK]], {MARK: 1}, {"value": MARK}, f"@{MARK}", f"{MARK} {MARK}"]),
    st.text(max_size=3).map(lambda text: text + MARK),
)
rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
workflows: st.SearchStrategy[Any] = st.one_of(
    rubbish, st.just([{"name": "orders", "instances": ["a"]}])
)


@st.composite
def accounts(draw: st.DrawFn) -> Any:
    account: dict[str, Any] = draw(
        st.dictionaries(st.sampled_from(["account_id", "name", "api_email"]), rubbish)
    )
    account |= {"account_id": "a"} if draw(st.booleans()) else {}
    account |= {draw(misspelt_keys): draw(secrets)}
    account |= {"workflows": draw(workflows)}
    return account


@st.composite
def configurations(draw: st.DrawFn) -> Any:
    account = draw(accounts())
    tree: dict[str, Any] = draw(
        st.dictionaries(st.sampled_from(["api", "poll", "web", "log"]), rubbish, max_size=2)
    )
    tree["accounts"] = draw(st.sampled_from([[account], account, [account, account], [[account]]]))
    if draw(st.booleans()):
        tree[draw(misspelt_keys)] = draw(secrets)
    return tree


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """YAML with a character or two put in or left out, but for those of the marker."""
    text = yaml.safe_dump(draw(configurations()), default_flow_style=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        if MARK[1:-1] in text[max(0, place - len(MARK)) : place + len(MARK)]:
            continue
        text = text[:place] + draw(st.sampled_from([*"'\":{}[]*&!@\t\n -", ""])) + text[place + 1 :]
    return text


@pytest.mark.slow
@given(mangled(), st.sampled_from(["", "*", "!", "&", "@", "!!int ", "%", "|", "'", '"']))
def test_a_secret_never_shows(text: str, sign: str) -> None:
    """Whether the file is taken or refused; `sign` stands where quotes are missing."""
    text = text.replace(f": {MARK}", f": {sign}{MARK}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        try:
            shown = repr(config.load(path, {}, {}))
        except ConfigError as error:
            shown = str(error)
    assert MARK not in shown
