//! Keys and tokens for the tests of this room.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
};
use serde_json::{Value, json};

use crate::domain::{Moment, Steady, Wall};

/// Made for these tests, and good for nothing else.
const RSA_PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC5tBiS/rSbE4yR
6KkF61/CbM7T1lJLaSUb+VJtqQnStxLLGOqYTThxr5nx/A8UiKmxK8l7AkjaaAZa
Pn4nm7JpWxct7VLZLHKEBT1hVF6FSnG+K70U3fOaaxYOXJK4qB1P0HBFSm+TyAZF
lJkbMduowBnEy/h5N8lkn6fLvq5qOzLRQJD8HiqHjqd0oX0qGkD0hDqYrVOxtS8H
z/BFi9iClJTvVnGi6nZZUa1cOFNEh7iiulrXYgIocLRdN9WId5y4jXheFdgy6CX3
lxNWILXeE287g8WyyaaL2z1n6CWbIb/dMpjI/T+4iXhH7NTJStwgDVvuCI8YT6l8
udqc+VhJAgMBAAECggEANVoQ/1ZO9Ai7R4Yk3U8ArX6OM10tOn4kS7OnI1s/t7qi
Gxh2+behwkO1gkis2nTi78RJN95xqNHfFVlD7EQ2jz882xSGS1+SLOzGdCqFl1zK
bdzqD08u+AvRA+JDwuqFtVMIlleq07XRW3c0P5Rk68f4/0msgsLsyMx3rDkFqf4H
bITFo2EX4I2cfk0ZuOxdNgByTTvX2GDN07TE/nk9jpuk2TjOTwtNaStId2LJX8du
Mi96RbZSG+2Vhaw218lSMNJay4dPkdLBsZXV0zM2CrXUqgNtPwPIW+SeX+MXDfK7
XJPToYBsgO9T7nGF1p4MgIRgFVWxu1Lt6ITKqpL48wKBgQDpHzOJ7vKDa+yzQey2
l924VwYq+pok/k2dGi8d+eXS0Now3vsuCkGRzqS9yO4cc5IRbrLxjy6swIProcl+
T6aPANU+Gz4HgivI9IriH9oQLmqqvDRVIdej8dNnbKID6+GW/R9eW7Sxv3Y/NoKv
vFj3ZXVh6mUu3YSlRfN053H9owKBgQDL7ZY/Rv/sWH2FjTrShawVZO3ha9WP+ufz
iyQsdPAIrIZUsCxj153Mdn0wsWxDRsZu4qUw/YVet1NJwjLloXdImg05VNKlsJ2k
WrsAo2uv9ZZaWi1iTCygQad88gPpO1SeOMFQVv+HN6sfs0KWxN8yYIhflVVi0A8c
ZVjGE1JZIwKBgQDDykK8/ASOQBxiSWIH0PCUm/JAMo03uKVy5sTfxjwxnNtD5GLN
Pivny8gs5Q6msqHhJjoACyNGT8H8KrtR7I+U1zxBlxu3rqobctcaJ2o74OARWVQS
lAPKW5YT7Pb9mCS1bQ3lb9wI1Sb43E1STzvhPEMj43rrq3x2WpOogaIJRQKBgBx2
VaERTMj09Nf+BTa613DI/HaY8V6+Gz+frPXTgGkFg14wlJF+15Rg+UohiUW+jBWP
5pR23fWBSsuhoi7woVBtx+i3kQr1Ipt82lrVdEND2K9VpL3yecwIPdMviCI2WLIY
o8qNye5ac7Th9SpL4gcK+B23HwrClUlWT9Sdf8HXAoGAHXx7opLZlE81dRx4+aTg
nssXO4Isl9ZixJkAO0fqHA1ig2krniwnH1+1IsJWqnPI6lgDFzuOjkBQAv/GSug2
LnIDatIXGdF6fjy3yFqpQcvvfbcu/3wJZKfowYEvq5RPRDC9BA6kbMV+KlFYdVfZ
kyigzVw9FrEnPtWg528+EXk=
-----END PRIVATE KEY-----";

/// The public half.
pub(super) const RSA_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAubQYkv60mxOMkeipBetf
wmzO09ZSS2klG/lSbakJ0rcSyxjqmE04ca+Z8fwPFIipsSvJewJI2mgGWj5+J5uy
aVsXLe1S2SxyhAU9YVRehUpxviu9FN3zmmsWDlySuKgdT9BwRUpvk8gGRZSZGzHb
qMAZxMv4eTfJZJ+ny76uajsy0UCQ/B4qh46ndKF9KhpA9IQ6mK1TsbUvB8/wRYvY
gpSU71Zxoup2WVGtXDhTRIe4orpa12ICKHC0XTfViHecuI14XhXYMugl95cTViC1
3hNvO4PFssmmi9s9Z+glmyG/3TKYyP0/uIl4R+zUyUrcIA1b7giPGE+pfLnanPlY
SQIDAQAB
-----END PUBLIC KEY-----
";

/// The same as PKCS #1.
pub(super) const RSA_PUBLIC_PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAubQYkv60mxOMkeipBetfwmzO09ZSS2klG/lSbakJ0rcSyxjqmE04
ca+Z8fwPFIipsSvJewJI2mgGWj5+J5uyaVsXLe1S2SxyhAU9YVRehUpxviu9FN3z
mmsWDlySuKgdT9BwRUpvk8gGRZSZGzHbqMAZxMv4eTfJZJ+ny76uajsy0UCQ/B4q
h46ndKF9KhpA9IQ6mK1TsbUvB8/wRYvYgpSU71Zxoup2WVGtXDhTRIe4orpa12IC
KHC0XTfViHecuI14XhXYMugl95cTViC13hNvO4PFssmmi9s9Z+glmyG/3TKYyP0/
uIl4R+zUyUrcIA1b7giPGE+pfLnanPlYSQIDAQAB
-----END RSA PUBLIC KEY-----
";

/// Of 1024 bits.
pub(super) const RSA_SHORT: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDFs3zlkLd815sm1L9gYPRotQ7B
RMN1pNpC/Mnwn2joa4L2AH37V33QhjxW+V6aXnjUCbPn+OL/M+kOkfMnMkVCEs9l
7/LezEXXpZRkNRkBx+VjFwml0kLWYnDnDn72OeyBWBo/SlgYHGdzq97FETtPTjSl
9JU5A8vol0DjkxPtzwIDAQAB
-----END PUBLIC KEY-----
";

/// A pair of keys.
pub(super) enum Pair {
    Ed(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair, Algorithm),
}

/// One for each algorithm.
pub(super) fn pairs() -> Vec<Pair> {
    vec![
        Pair::ed25519(),
        Pair::p256(),
        Pair::rsa(Algorithm::RS256),
        Pair::rsa(Algorithm::RS384),
        Pair::rsa(Algorithm::RS512),
    ]
}

impl Pair {
    pub(super) fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    pub(super) fn p256() -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap())
    }

    /// Always the same key.
    pub(super) fn rsa(algorithm: Algorithm) -> Self {
        let der = der(&format!("{RSA_PRIVATE}\n"));
        Self::Rsa(RsaKeyPair::from_pkcs8(&der).unwrap(), algorithm)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed(_) => Algorithm::EdDSA,
            Self::P256(_) => Algorithm::ES256,
            Self::Rsa(_, algorithm) => *algorithm,
        }
    }

    /// As `alg` says it.
    pub(super) fn alg(&self) -> String {
        format!("{:?}", self.algorithm())
    }

    /// The signature in base64url.
    pub(super) fn sign(&self, message: &[u8]) -> String {
        let signature = match self {
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::P256(pair) => {
                let signed = pair.sign(&SystemRandom::new(), message).unwrap();
                signed.as_ref().to_vec()
            }
            Self::Rsa(pair, algorithm) => {
                let how: &dyn ring::signature::RsaEncoding = match algorithm {
                    Algorithm::RS256 => &RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &RSA_PKCS1_SHA384,
                    _ => &RSA_PKCS1_SHA512,
                };
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(how, &SystemRandom::new(), message, &mut signed)
                    .unwrap();
                signed
            }
        };
        URL_SAFE_NO_PAD.encode(signature)
    }

    /// A token with this header and these claims.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw_token(&header.to_string(), &claims.to_string())
    }

    /// The same of any text.
    pub(super) fn raw_token(&self, header: &str, claims: &str) -> String {
        let parts = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = parts.join(".");
        let signature = self.sign(message.as_bytes());
        format!("{message}.{signature}")
    }

    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            Self::Ed(pair) => DecodingKey::from_ed_der(pair.public_key().as_ref()),
            Self::P256(pair) => DecodingKey::from_ec_der(pair.public_key().as_ref()),
            Self::Rsa(pair, _) => DecodingKey::from_rsa_der(pair.public_key().as_ref()),
        }
    }

    pub(super) fn public_pem(&self) -> String {
        let (prefix, key): (&[u8], &[u8]) = match self {
            Self::Ed(pair) => (
                b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
                pair.public_key().as_ref(),
            ),
            Self::P256(pair) => (
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
                  \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
                pair.public_key().as_ref(),
            ),
            Self::Rsa(..) => return RSA_PUBLIC.to_owned(),
        };
        pem("PUBLIC KEY", &[prefix, key].concat())
    }

    /// The public half without `alg` and `kid`.
    pub(super) fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            Self::Rsa(pair, _) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e)})
            }
        }
    }
}

/// A PEM file of one block.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// What a PEM file of one block holds.
pub(super) fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

/// A moment at which both clocks say so many seconds.
pub(super) fn at(seconds: u64) -> Moment {
    both(seconds, seconds)
}

/// A moment at which the clocks say different things, in seconds.
pub(super) fn both(steady: u64, wall: u64) -> Moment {
    Moment {
        steady: Steady::from_ms(steady * 1000),
        wall: Wall::from_ns(wall * 1_000_000_000),
    }
}
