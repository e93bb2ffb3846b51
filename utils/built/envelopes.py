"""Four ways to protect a file, made alike, so that one set of attacks can try them all.

`seal(data)` -> what is sent, two pieces of bytes; `open(*sent)` -> the data, or Refused.
`thief()` -> what somebody can seal with who has read everything on the user's device.
Signature and Encryption need the package `cryptography`: `here()` says which can be tried.
Built for chapter 27.
"""

import hashlib
import hmac
import secrets
from importlib.util import find_spec


class Refused(ValueError):
    "What was sent is not what was sealed."


class Checksum:
    "SHA-256 beside the data: no key, so anyone can make it."

    def seal(self, data):
        return data, hashlib.sha256(data).digest()

    def open(self, data, code):
        if not hmac.compare_digest(hashlib.sha256(data).digest(), code):
            raise Refused("the digest does not fit")
        return data

    def thief(self):
        return self


class Mac(Checksum):
    "HMAC-SHA256 under a key that maker and user share."

    def __init__(self):
        self.key = secrets.token_bytes(32)

    def seal(self, data):
        return data, hmac.new(self.key, data, hashlib.sha256).digest()

    def open(self, data, code):
        if not hmac.compare_digest(self.seal(data)[1], code):
            raise Refused("the code does not fit")
        return data


class Signature:
    "Ed25519: the maker signs with a private key, the user has the public one."

    def __init__(self):
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self.private = ed25519.Ed25519PrivateKey.generate()
        self.public = self.private.public_key()

    def seal(self, data):
        return data, self.private.sign(data)

    def open(self, data, code):
        from cryptography.exceptions import InvalidSignature

        try:
            self.public.verify(code, data)
        except InvalidSignature:
            raise Refused("the signature does not fit") from None
        return data

    def thief(self):
        "The device has the public key alone: the thief signs with a key of his own."
        return Signature()


class Encryption:
    "AES-GCM under a key that maker and user share: hidden, and every change is noticed."

    def __init__(self):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.cipher = AESGCM(AESGCM.generate_key(256))

    def seal(self, data):
        nonce = secrets.token_bytes(12)  # never the same twice under one key
        return self.cipher.encrypt(nonce, data, None), nonce

    def open(self, data, nonce):
        from cryptography.exceptions import InvalidTag

        try:
            return self.cipher.decrypt(nonce, data, None)
        except (InvalidTag, ValueError):  # a nonce of another length is one, too
            raise Refused("it was not encrypted like this under this key") from None

    def thief(self):
        return self


def here():
    "{name: protection} of what can be tried on this machine."
    found = {"checksum": Checksum(), "MAC": Mac()}
    if find_spec("cryptography") is not None:
        found |= {"signature": Signature(), "encryption": Encryption()}
    return found
