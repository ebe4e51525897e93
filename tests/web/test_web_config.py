"""What a web configuration may say, and what is said of a wrong one."""

import re
from pathlib import Path

import msgspec
import pytest

from exporter.config.errors import ConfigError
from exporter.web import web_config as config

EXAMPLE = Path(__file__).parents[2] / "web.example.yaml"
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
PAIR = "cert_file: s.crt, key_file: s.key"
SUITES = f"{', '.join(config.CIPHER_SUITES)}; those of TLS 1.3 are always offered"
TLS_KEYS = ", ".join(config.Tls.model_fields)


def read(folder: Path, text: str) -> config.WebConfig:
    file = folder / "web.yaml"
    file.write_text(text)
    return config.read(file)


REFUSED = {
    "nothing": ("", "is empty; to run without protection, remove web.config_file"),
    "only a comment": ("# later\n", "is empty; to run without protection, remove web.config_file"),
    "a list": (
        "[a]",
        "must be a mapping with keys such as tls_server_config and basic_auth_users",
    ),
    "an unknown key": (
        "tls_config: {}",
        "tls_config: unknown key; did you mean tls_server_config?",
    ),
    "an unknown key below": (
        f"tls_server_config: {{{PAIR}, cert_fil: x}}",
        "tls_server_config.cert_fil: unknown key; did you mean tls_server_config.cert_file?",
    ),
    "a section without anything": (
        "tls_server_config:",
        "tls_server_config: has no value; remove the key, or give it one",
    ),
    "a list of allowed names that is lost": (
        f"tls_server_config: {{{PAIR}, client_allowed_sans: }}",
        "tls_server_config.client_allowed_sans: has no value; remove the key, or give it one",
    ),
    "a list of users": (
        "basic_auth_users: [prometheus]",
        "basic_auth_users: must be a mapping",
    ),
    "no key file": ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: is missing"),
    "a certificate as it is": (
        f"tls_server_config: {{{PAIR}, cert: hidden}}",
        "tls_server_config.cert: unknown key; did you mean tls_server_config.cert_file?",
    ),
    "a key as it is": (
        f"tls_server_config: {{{PAIR}, key: hidden}}",
        f"tls_server_config.key: unknown key; known here: {TLS_KEYS}",
    ),
    "an authority as it is": (
        f"tls_server_config: {{{PAIR}, client_ca: hidden}}",
        "tls_server_config.client_ca: unknown key; did you mean tls_server_config.client_ca_file?",
    ),
    "a key in place of its file": (
        'tls_server_config: {cert_file: a, key_file: "-----BEGIN PRIVATE KEY----- hidden"}',
        "tls_server_config.key_file: must be the path of a file; write the contents to one",
    ),
    "clients' certificates that nobody signed": (
        f"tls_server_config: {{{PAIR}, client_auth_type: RequireAnyClientCert}}",
        "tls_server_config.client_auth_type: must be 'NoClientCert', 'VerifyClientCertIfGiven' or "
        "'RequireAndVerifyClientCert'",
    ),
    "an unknown policy for clients": (
        f"tls_server_config: {{{PAIR}, client_auth_type: Yes please}}",
        "tls_server_config.client_auth_type: must be 'NoClientCert', 'VerifyClientCertIfGiven' or "
        "'RequireAndVerifyClientCert'",
    ),
    "clients' certificates without an authority": (
        f"tls_server_config: {{{PAIR}, client_auth_type: RequireAndVerifyClientCert}}",
        "tls_server_config: client_ca_file and client_auth_type need each other; write "
        "RequireAndVerifyClientCert to require certificates of that authority",
    ),
    "an authority without a policy": (
        f"tls_server_config: {{{PAIR}, client_ca_file: ca.pem}}",
        "tls_server_config: client_ca_file and client_auth_type need each other; write "
        "RequireAndVerifyClientCert to require certificates of that authority",
    ),
    "names that nobody needs to have": (
        f"tls_server_config: {{{PAIR}, client_ca_file: ca.pem, "
        "client_auth_type: VerifyClientCertIfGiven, client_allowed_sans: [a]}",
        "tls_server_config: client_allowed_sans needs client_auth_type RequireAndVerifyClientCert",
    ),
    "no name that is allowed": (
        f"tls_server_config: {{{PAIR}, client_allowed_sans: []}}",
        "tls_server_config.client_allowed_sans: must not be empty",
    ),
    "an old version": (
        f"tls_server_config: {{{PAIR}, min_version: TLS10}}",
        "tls_server_config.min_version: must be 'TLS12' or 'TLS13'",
    ),
    "a version that is none": (
        f"tls_server_config: {{{PAIR}, max_version: '1.3'}}",
        "tls_server_config.max_version: must be 'TLS12' or 'TLS13'",
    ),
    "versions the wrong way round": (
        f"tls_server_config: {{{PAIR}, min_version: TLS13, max_version: TLS12}}",
        "tls_server_config: min_version is above max_version",
    ),
    "an unknown suite": (
        f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}",
        f"tls_server_config.cipher_suites[0]: must be one of {SUITES}",
    ),
    "a suite of TLS 1.3": (
        f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}",
        f"tls_server_config.cipher_suites[0]: must be one of {SUITES}",
    ),
    "curves": (
        f"tls_server_config: {{{PAIR}, curve_preferences: [X25519]}}",
        f"tls_server_config.curve_preferences: unknown key; known here: {TLS_KEYS}",
    ),
    "HTTP/2": (
        "http_server_config: {http2: true}",
        "http_server_config.http2: HTTP/2 is not supported; remove it (it is 'True')",
    ),
    "a header that can't be set": (
        "http_server_config: {headers: {Set-Cookie: hidden}}",
        "http_server_config.headers: only these can be set: Content-Security-Policy, "
        "X-Frame-Options, X-Content-Type-Options, X-XSS-Protection, Strict-Transport-Security",
    ),
    "a header's value that is none": (
        "http_server_config: {headers: {X-Frame-Options: allow}}",
        "http_server_config.headers: X-Frame-Options must be deny or sameorigin",
    ),
    "a header with letters beyond ASCII": (
        "http_server_config: {headers: {X-XSS-Protection: größe}}",
        "http_server_config.headers: X-XSS-Protection must be printable ASCII text, and not empty",
    ),
    "a header in two lines": (
        'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nSet-Cookie: a"}}',
        "http_server_config.headers: X-XSS-Protection must be printable ASCII text, and not empty",
    ),
    "an empty header": (
        'http_server_config: {headers: {Content-Security-Policy: ""}}',
        "http_server_config.headers: Content-Security-Policy must be printable ASCII text, "
        "and not empty",
    ),
    "nobody": (
        "basic_auth_users: {}",
        "basic_auth_users: must not be empty; to let everyone in, remove it",
    ),
    "users without anything": (
        "basic_auth_users:",
        "basic_auth_users: has no value; remove the key, or give it one",
    ),
    "a password as it is": (
        "basic_auth_users: {alice: hidden}",
        "basic_auth_users.alice: must be a bcrypt hash; make one with: htpasswd -nBC 10 NAME",
    ),
    "a number as a password": (
        "basic_auth_users: {alice: 1234}",
        "basic_auth_users.alice: must be text; put it in quotes",
    ),
    "a cost that takes hours": (
        f"basic_auth_users: {{alice: {HASH.replace('$10$', '$31$')}}}",
        "basic_auth_users.alice: cost must be from 4 to 14; 10 is usual",
    ),
    "an empty name": (
        f"basic_auth_users: {{'': {HASH}}}",
        "basic_auth_users: a user's name must not be empty or contain a colon",
    ),
    "a name with a colon": (
        f"basic_auth_users: {{'a:b': {HASH}}}",
        "basic_auth_users: a user's name must not be empty or contain a colon",
    ),
    "limits by rate": (
        "rate_limit: {interval: 1s}",
        "rate_limit: unknown key; known here: tls_server_config, http_server_config, "
        "basic_auth_users",
    ),
}


class TestMistakes:
    @pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
    def test_each_gets_its_message(self, tmp_path: Path, text: str, message: str) -> None:
        """And none repeats a key, a password or a hash."""
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, text)
        assert caught.value.problems == [f"{tmp_path}/web.yaml: {message}"]
        assert "hidden" not in str(caught.value)
        assert HASH[-20:] not in str(caught.value)

    def test_all_are_reported_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, "tls_server_config: {}\nhttp_server_config: {http2: 1}\nx: 1\n")
        assert len(caught.value.problems) == 4


class TestTaken:
    def test_a_file_shows_no_hash_when_it_is_printed(self, tmp_path: Path) -> None:
        assert HASH not in repr(read(tmp_path, f"basic_auth_users: {{alice: {HASH}}}"))

    @pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
    def test_hashes_of_all_tools(self, tmp_path: Path, prefix: str) -> None:
        said = read(tmp_path, f"basic_auth_users: {{alice: {HASH.replace('$2y$', prefix)}}}")
        assert said.basic_auth_users is not None

    def test_the_example_loads_and_names_every_key_that_works(self) -> None:
        text = EXAMPLE.read_text()
        config.read(EXAMPLE)
        uncommented = msgspec.yaml.decode(re.sub(r"(?m)^  # ([a-z_0-9]+: )", r"  \1", text))
        assert set(uncommented["tls_server_config"]) == set(config.Tls.model_fields)
        assert set(uncommented["http_server_config"]) == set(config.Http.model_fields)
        assert set(uncommented) == set(config.WebConfig.model_fields)
