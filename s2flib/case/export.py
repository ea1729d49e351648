"""Takes the drawing, the pictures and the log out of a case, with content credentials where c2pa-python is installed.

The pictures of a case carry s2flib's PNG text (synthetic, seed, weights). C2PA (c2pa.org) adds a signed manifest that
content-credential readers show: created by a trained algorithm. No authority stands behind it: the certificate is made
for each export, signed by itself, and nobody trusts it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import s2flib
from s2flib.case.archive import load_case, member_of
from s2flib.case.summary import summary
from s2flib.errors import S2FError, printable
from s2flib.files import atomic_path, write_text

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"  # IPTC's term for it
SIGNED = (
    "the pictures are signed (C2PA) with a certificate that was made for this export and signed by itself: it shows "
    "that they have not changed since, but no one trusts it, and it does not say who made them"
)
NOT_SIGNED = "the pictures carry PNG text only: for C2PA manifests, pip install c2pa-python cryptography"
Signer = Callable[[bytes, str], bytes]  # (PNG, its title) → the same with a manifest


def export_case(path: str | Path, out: str | Path, overwrite: bool = False) -> tuple[list[Path], str]:
    """Write drawing, pictures, log (log.json) and summary (case.txt) of a sound case to a folder.

    Returns the files and a sentence on how they are signed. S2FError for a case that was changed, or before anything is
    written when a file exists and ``overwrite`` is False.
    """
    case, out = load_case(path), Path(out)
    if out.exists() and not out.is_dir():
        raise S2FError(f"{out} is a file: choose a folder for the pictures.")
    names = {name: name.replace("/", "_") for name in case.members}
    taken = [out / name for name in (*names.values(), "log.json", "case.txt") if (out / name).exists()]
    if taken and not overwrite:
        raise S2FError(f"{taken[0]} exists already: choose another folder, or add --overwrite.")
    sign = c2pa_signer()
    files = []
    for name, blob in case.members.items():
        target = out / names[name]
        if sign is not None and name.endswith(".png") and not name.startswith("drawing"):
            blob = sign(blob, name)
        with atomic_path(target) as part:
            part.write_bytes(blob)
        files.append(target)
    log = {member_of(entry.index): asdict(entry) for entry in case.entries}
    files.append(write_text(out / "log.json", json.dumps(log, indent=2) + "\n", overwrite))
    files.append(write_text(out / "case.txt", summary(case) + "\n", overwrite))
    return files, NOT_SIGNED if sign is None else SIGNED


def c2pa_signer() -> Signer | None:
    """A function that adds a signed C2PA manifest to a PNG; None when c2pa-python (or cryptography) is not installed.

    The calls (Builder, C2paSignerInfo, Signer.from_info, Builder.sign) are those of c2pa-python 0.38.1, with which they
    were tried by hand: its Reader finds the manifest valid, with signingCredential.untrusted, as it should. The tests
    use a stand-in, because the package is not a dependency.
    """
    try:
        import c2pa  # pyright: ignore[reportMissingImports]

        chain, key = _certificate()
        info = c2pa.C2paSignerInfo(b"es256", chain, key, None)  # no time stamp server: an export works offline
        signer = c2pa.Signer.from_info(info)
        builder = c2pa.Builder
    except (ImportError, AttributeError):  # not installed, or another package of this name
        return None

    def sign(png: bytes, title: str) -> bytes:
        source, target = io.BytesIO(png), io.BytesIO()
        try:
            builder(json.dumps(_manifest(title))).sign(signer, "image/png", source, target)
        except Exception as error:  # the library's own types
            raise S2FError(
                f"{title} cannot be signed ({printable(error)}): update c2pa-python, or uninstall it."
            ) from error
        return target.getvalue()

    return sign


def _manifest(title: str) -> dict[str, Any]:
    """The manifest: made by s2flib, with a trained algorithm."""
    return {
        "claim_generator_info": [{"name": "s2flib", "version": s2flib.__version__}],
        "title": title,
        "format": "image/png",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": SYNTHETIC}]},
            }
        ],
    }


def _certificate() -> tuple[bytes, bytes]:
    """(certificate, private key), PEM: ES256, signed by itself, valid for a year; the key is never written to disk."""
    from cryptography import x509  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives import hashes, serialization  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives.asymmetric import ec  # pyright: ignore[reportMissingImports]
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # pyright: ignore[reportMissingImports]

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "s2flib export, signed by itself"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "not an authority"),  # C2PA asks for an organisation
        ]
    )
    usage = {k: k == "digital_signature" for k in (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )}  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
