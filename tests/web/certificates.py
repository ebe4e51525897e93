"""Certificates of a certificate authority that tests make up."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """Signs, and puts what it signed into files of a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def sign(self, name: str, *sans: str) -> tuple[Path, Path]:
        """`name.crt` and `name.key`; again, if they are there already."""
        signed = self._ca.issue_cert(*(sans or ("127.0.0.1", "::1", "localhost")))
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(b"".join(pem.bytes() for pem in signed.cert_chain_pems))
        files[1].write_bytes(signed.private_key_pem.bytes())
        return files

    def client(self, *files: Path) -> ssl.SSLContext:
        """How a client connects that trusts this authority, with a certificate if one is given."""
        context = ssl.create_default_context(cafile=self.file)
        if files:
            certificate, key = files
            context.load_cert_chain(certificate, key)
        return context
