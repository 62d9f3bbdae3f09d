"""Makes what compose.yaml needs, where it is not there yet: identities, and a token.

It runs as root with the group of the containers that read the files. They belong to root and that
group, as the files of a Kubernetes Secret do: readable there, and changed by nobody.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.auth import new_token, token_line
from zapcore import Identity

READABLE = 0o440


def main(folder: Path) -> None:
    """Make all that is missing in the folders of the two sides."""
    gateway, netrunner = folder / "gateway", folder / "netrunner"
    make_identity(gateway / "gateway.json", public=netrunner / "gateway.pub")
    make_identity(netrunner / "netrunner.json", public=gateway / "netrunner.pub")
    make_token(gateway / "tokens")


def make_identity(path: Path, public: Path) -> None:
    """An identity, with its public side where the other side finds it."""
    if not path.exists():
        identity = Identity.generate()
        public.unlink(missing_ok=True)  # of an attempt that was cut off
        identity.public.save(public)
        identity.save(path)  # last: once it is there, both are
    path.chmod(READABLE)


def make_token(path: Path) -> None:
    """A token that may do everything; it is shown here, and its digest is kept."""
    if path.exists():
        return
    token = new_token()
    path.write_text(token_line("compose", "operate", token) + "\n")
    path.chmod(READABLE)
    sys.stdout.write(f"Token, shown once: {token}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
