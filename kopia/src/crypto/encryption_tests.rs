use super::*;
use crate::ErrorKind;
use crate::crypto::keys;

const AES: &str = "AES256-GCM-HMAC-SHA256";
const CHACHA: &str = "CHACHA20-POLY1305-HMAC-SHA256";

fn cipher(name: &str, content_secret: &str) -> Cipher {
    Cipher::new(name, &hex::decode(content_secret).unwrap().try_into().unwrap(), None).unwrap()
}

fn sample_cipher(name: &str, ecc: Option<u32>) -> Cipher {
    let ecc = ecc.map(|percent| Ecc::new("REED-SOLOMON-CRC32", percent).unwrap());
    Cipher::new(name, &keys::content_secret(b"some master key"), ecc).unwrap()
}

/// What real repositories hold (specification, appendix A.1 to A.3).
struct Vector {
    cipher: &'static str,
    content_secret: &'static str,
    hash_of_abc: &'static str,
    content_key: &'static str,
    stored_abc: &'static str,
    blob: &'static str,
    stored_blob: &'static str,
    plain_blob: &'static str,
}

const VECTORS: [Vector; 3] = [
    Vector {
        cipher: AES,
        content_secret: "c0c59b47a4f117f98f8b9c852d00bdcb1ee62f71193c27d3c319eafb4ac0a030",
        hash_of_abc: "82b39a12512935970065e53a3aa78c41",
        content_key: "4fbbdd54f663bdee52e4d5c9d917f598778e3f86403101a836b54e5e99fb41b2",
        stored_abc: "859b001c155e4f40e7beae6ca547c0b233083d6bf95af87fb23326056deb56",
        blob: "xn0_f00722f7ba691e706ba3657b597d628c-s38138b63249bdaf6147-c1",
        stored_blob: concat!(
            "a86d970291da7b823d30303fdec1d139032ce9821b139802a47b48a90f5c3d9ae21af43b3e30a031d5ef3ced929ce69f148c0eb3e2e84a",
            "499a2d025ab98518ba04e617d88275252345941375e94e8df17eac3800b4cfb3b1cd39",
            "e5b519dc9c8253ff6ee2530a28f5cd6479ce12332b8c99b89b464e52370af62adfdbe507547c8b1466efda7e2563468f5e1a8cfebd",
        ),
        plain_blob: concat!(
            "02110010000000010000000101000000006d1f12c09083c5e9f82b87fd8c91876bf96b016431000000200002850002a10000360000003d",
            "0000000003007130356339633633366332316336306564656634323139383061636562",
            "666664362d7333383133386236333234396264616636313437",
        ),
    },
    Vector {
        cipher: CHACHA,
        content_secret: "aca03063e72cc8fbd344a6d645c9fa7e5d419b42456a6ea916c798dd8c36f244",
        hash_of_abc: "ed0a8a0825dc73fe8a7a8022f597940c",
        content_key: "748dcd79e66b19bcb7db20b7b963d59f64583676725092afbf78977cbdd91dd7",
        stored_abc: "c64f9cbcd9df3af9974c0203cf78c490b3bb9282238e14f8dfde51e3e5a24e",
        blob: "xn0_3c147ec4287b14a389b2c80616863346-se41b293769412b79147-c1",
        stored_blob: concat!(
            "cdf2244f2410ceb9627c13019b38b61f38610808bc8b33e80f56277913adc7acf8c4d4edf5a13c6ffd5ca4aa5147f2d31e97645f09b94b",
            "556c337a64db6cadf4bb5572ff19291b39c04ce096837fee0051424902f1fd7ae0c55f",
            "e2ee87ee4d1c1d2446609d44f6c403d09e8d8b320f2f605e7caea98fcbc3d6658b367f0fab9adf0ef986a929373bec590eeb4b73d1",
        ),
        plain_blob: "",
    },
    Vector {
        cipher: AES,
        content_secret: "ead997ae469a300f7bc2c52decb9cc47fbb8cfceeb87dc5d2767ad360c17cd9f",
        hash_of_abc: "bfecfa7185562585e8e35ac36a29fe43",
        content_key: "7bf99528e72b4d6ea5b154372c69de067e810ce765e35e03efb0a16ae704f75c",
        stored_abc: "ed183a3c2290d8febff447d7ede2eb13765b5b04c40c97666cf2f7143d13b6",
        blob: "n743c36c291675b37b861a54aea322d40-s69daf9e34a8fb05d147",
        stored_blob: concat!(
            "7c82921897672cce3923468c991cbb580e3a0e9a1fa482a67e743545e3ed135661d35b694a3a6ab9558f0ef0bda205d6f19708a029e7c5",
            "22e316822fc0ca58eb0e2b339109a81346be8cee73a3883741f0e277f19d84f55f8882",
            "878ab55e0b0b19623b320d406a3c660022d31f2ecd515d102cfcb093192c95d8cfaa3782b6",
        ),
        plain_blob: concat!(
            "01110014000000016ddc647eea2a9a95c6fa09e813efc52c7400006b0162ae01360000002d00000447000002a671646536346638666265",
            "64353438336361373530643838366239343938343739342d7336396461663965333461",
            "386662303564313437",
        ),
    },
];

#[test]
fn items_and_blobs_of_real_repositories_open() {
    for vector in VECTORS {
        let cipher = cipher(vector.cipher, vector.content_secret);
        let iv = hex::decode(vector.hash_of_abc).unwrap();
        assert_eq!(hex::encode(*cipher.item_key(&iv)), vector.content_key);
        let (plain, repaired) = cipher.open(&iv, &hex::decode(vector.stored_abc).unwrap()).unwrap();
        assert_eq!((plain.as_slice(), repaired), (b"abc".as_slice(), Repaired(false)));
        let blob = cipher.open_blob(&BlobId::from(vector.blob), &hex::decode(vector.stored_blob).unwrap()).unwrap();
        if vector.plain_blob.is_empty() {
            assert_eq!(blob[0], 2, "an index of version 2");
        } else {
            assert_eq!(hex::encode(blob), vector.plain_blob);
        }
    }
}

#[test]
fn sealed_items_open_with_and_without_error_correction() {
    for name in [AES, CHACHA] {
        for percent in [None, Some(2), Some(10)] {
            let cipher = sample_cipher(name, percent);
            let mut plain = vec![1, 2, 3];
            for length in [0, 1, 15, 16, 17, 300, 5000, 70_000] {
                let item = vec![0xA5; length];
                let stored = cipher.seal(b"any iv", &item).unwrap();
                if percent.is_none() {
                    assert_eq!(stored.len(), length + cipher.overhead());
                }
                assert_eq!(cipher.open_into(b"any iv", &stored, &mut plain).unwrap(), Repaired(false));
                assert_eq!(plain, item);
                assert!(cipher.open(b"another iv", &stored).is_err());
            }
            assert_ne!(cipher.seal(b"iv", b"x").unwrap(), cipher.seal(b"iv", b"x").unwrap(), "nonces repeat");
        }
    }
}

#[test]
fn changed_or_cut_items_are_damage_and_leave_no_plaintext() {
    for name in [AES, CHACHA] {
        let cipher = sample_cipher(name, None);
        let stored = cipher.seal(b"iv", b"secret words").unwrap();
        let mut plain = b"from before".to_vec();
        for bit in 0..stored.len() * 8 {
            let mut hit = stored.clone();
            hit[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cipher.open_into(b"iv", &hit, &mut plain).unwrap_err().kind(), ErrorKind::Damaged);
            assert!(plain.is_empty());
        }
        for end in 0..stored.len() {
            assert_eq!(cipher.open(b"iv", &stored[..end]).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }
}

#[test]
fn error_correction_repairs_what_the_tag_then_confirms() {
    let cipher = sample_cipher(AES, Some(10));
    let mut stored = cipher.seal(b"iv", &[7; 9000]).unwrap();
    let middle = stored.len() / 2;
    stored[middle] ^= 1;
    assert_eq!(cipher.open(b"iv", &stored).unwrap(), (vec![7; 9000], Repaired(true)));
    for byte in &mut stored[middle..middle + 600] {
        *byte ^= 0xFF;
    }
    assert_eq!(cipher.open(b"iv", &stored).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn whole_blobs_carry_their_iv_in_the_name() {
    let cipher = sample_cipher(CHACHA, None);
    for hash in ["BLAKE2B-256-128", "HMAC-SHA224", "HMAC-SHA3-256"] {
        let hasher = Hasher::new(hash, &[3; 32]).unwrap();
        for (prefix, suffix) in [("n", ""), ("xn12_", "s0123-c1"), ("_log_20260101_", "abc")] {
            let (id, stored) = cipher.seal_blob(&hasher, prefix, suffix, b"payload").unwrap();
            assert!(id.as_str().starts_with(prefix) && id.as_str().ends_with(suffix), "{id}");
            assert_eq!(blob_iv(&id).unwrap(), hasher.hash(b"payload").iv());
            assert_eq!(cipher.open_blob(&id, &stored).unwrap(), b"payload");
        }
    }
}

#[test]
fn names_without_an_iv_are_damage() {
    for name in ["", "-", "n", "n0123-s", "nZZ3c36c291675b37b861a54aea322d40", "né743c36c291675b37b861a54aea322d4"] {
        let error = sample_cipher(AES, None).open_blob(&BlobId::from(name), &[0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}");
    }
}

#[test]
fn removed_and_unknown_ciphers_are_refused_with_different_words() {
    for name in ["NONE", "AES-128-CTR", "AES-192-CTR", "AES-256-CTR", "SALSA20", "SALSA20-HMAC", "XSALSA20-HMAC"] {
        let error = Cipher::new(name, &[0; 32], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(name) && error.fix().unwrap().contains("old Kopia"));
    }
    let error = Cipher::new("ROT13", &[0; 32], None).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.fix().is_none());
}
