"""Who may talk to whom: token, TLS, and the addresses that are open without them."""

import hmac
import ipaddress
import os
import ssl
from pathlib import Path

from emu_agent.errors import ConfigError

TOKEN_VARIABLE = "EMU_AGENT_TOKEN"
"""Environment variable that holds the token where no file is named."""
SHORTEST_TOKEN = 16
READABLE_BY_OTHERS = 0o077


def read_token(token_file: Path | str | None) -> str:
    """The token from a file or, without one, from the environment; empty if there is neither.

    Raises:
        ConfigError: If the file is missing or others may read it, or the token is too short.
    """
    if token_file is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        source = TOKEN_VARIABLE
    else:
        token, source = _from_file(Path(token_file)), str(token_file)
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ConfigError(
            f"the token of {source} must be at least {SHORTEST_TOKEN} printable ASCII characters, "
            "for example those of: openssl rand -hex 32"
        )
    return token


def same_token(given: str, right: str) -> bool:
    """Compare in a time that does not tell how much was right."""
    return hmac.compare_digest(given.encode(), right.encode())


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, token: str, tls: bool, insecure: bool) -> None:
    """Refuse to open a robot to a network by accident.

    Raises:
        ConfigError: If the address is not this machine's own and token or TLS is missing.
    """
    missing = [what for what, there in (("a token", token), ("TLS", tls)) if not there]
    if missing and not is_loopback(host) and not insecure:
        raise ConfigError(
            f"{host} can be reached by others, and {' and '.join(missing)} is missing: set token_file (or "
            f"{TOKEN_VARIABLE}) and TLS, stay on 127.0.0.1, or say insecure=true"
        )


def server_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS of a server; None without a certificate.

    Raises:
        ConfigError: If one of the two files is not given, or they cannot be read.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("TLS needs both certificate and key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read certificate={certificate} with key={key}: {error}") from error
    return context


def client_context(authority: str | None) -> ssl.SSLContext | None:
    """TLS of a robot, which trusts servers with a certificate of this authority; None without one.

    Raises:
        ConfigError: If the file cannot be read.
    """
    if authority is None:
        return None
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read authority={authority}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _from_file(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read token_file={path}: {error}") from error
    if mode & READABLE_BY_OTHERS:
        raise ConfigError(f"others may read token_file={path}; do: chmod 600 {path}")
    if not text.strip():
        raise ConfigError(f"token_file={path} is empty; do: openssl rand -hex 32 > {path}")
    return text.strip()
