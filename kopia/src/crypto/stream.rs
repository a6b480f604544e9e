//! Decryption of one large AEAD message in bounded memory.
