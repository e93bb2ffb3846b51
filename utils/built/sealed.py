"""A model's folder, sealed: a list of its files with digests, and a code over the list.

The code is HMAC-SHA256 (RFC 2104) under a key that maker and user share. A signature,
which any user can verify and only the maker can make, needs the package `cryptography`:
`sign` and `signed`. Built for chapter 27.
"""

import hashlib
import hmac
import json
from pathlib import Path, PureWindowsPath

from utils import given

LINK = "a link, or no file"  # in place of a digest


def files(folder):
    "{name: path} of all files in a folder and in the folders in it; names with slashes."
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r:.80}")
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }


def digest(path):
    "SHA-256 of a file, as 64 hexadecimal digits; of a link or a device, LINK."
    path = Path(path)
    if path.is_symlink() or not path.is_file():
        return LINK
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder):
    """{name: digest} of every file in a folder.

    A link has LINK for a digest: it can point out of the folder, and is not sealed.
    """
    return {name: digest(path) for name, path in files(folder).items()}


def canonical(listed):
    """A manifest as bytes, the same bytes for the same manifest: names in order.

    ValueError for a name that leaves the folder, and for a link.
    """
    if not isinstance(listed, dict):
        raise TypeError(f"a manifest is {{name: digest}}, not {given.kind(listed)}")
    for name, code in listed.items():
        if not isinstance(name, str) or not _stays(name):
            raise ValueError(f"{name!r:.80} leaves the folder: it is not sealed")
        if not isinstance(code, str) or code == LINK:
            raise ValueError(f"{name!r:.80} is a link or no file: it is not sealed")
    return json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()


def _stays(name):
    "Whether a name leads to a place in the folder, on every system."
    parts = name.replace("\\", "/").split("/")
    return not {"", ".", ".."} & set(parts) and not PureWindowsPath(name).drive


def mac(listed, key):
    "The manifest's authentication code under a key of bytes: 64 hexadecimal digits."
    if not isinstance(key, bytes) or len(key) < 16:
        raise ValueError("a key is at least 16 random bytes: secrets.token_bytes(32)")
    return hmac.new(key, canonical(listed), hashlib.sha256).hexdigest()


def verify(folder, listed, code, key):
    """What is wrong with a folder: a sorted list of names, empty if nothing is.

    ["manifest"] where the code does not fit the manifest: then nothing in it is believed.
    Else every file that is changed, missing, not listed, or now a link. ValueError, as of
    `mac`, for a manifest with a name that leaves the folder.
    """
    if not isinstance(code, str) or not hmac.compare_digest(
        mac(listed, key).encode(), code.encode()
    ):
        return ["manifest"]
    now = manifest(folder)
    return sorted(name for name in listed | now if listed.get(name) != now.get(name))


def load_verified(folder, listed, code, key):
    "{name: bytes} of a folder, or ValueError; what is returned is what was verified."
    held = {name: path.read_bytes() for name, path in files(folder).items()
            if name in listed and not path.is_symlink()}  # fmt: skip
    wrong = verify(folder, listed, code, key)
    wrong = wrong or sorted(
        name for name in listed
        if hashlib.sha256(held.get(name, b"")).hexdigest() != listed[name]
    )  # fmt: skip
    if wrong:
        raise ValueError(f"not loaded; this is not what was sealed: {', '.join(wrong)}")
    return held


def sign(listed, private):
    "64 bytes that only the holder of this Ed25519 private key can make for a manifest."
    return private.sign(canonical(listed))


def signed(listed, signature, public):
    "Whether a signature belongs to this manifest and to this public key."
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, canonical(listed))
    except InvalidSignature:
        return False
    return True


def flip(data, bit):
    "The bytes with one bit turned: bit 0 is the lowest of the first byte."
    given.whole("bit", bit, 0, 8 * len(data) - 1)
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
