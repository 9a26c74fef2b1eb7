//! Providers of tokens: their keys and where these are fetched.
//!
//! Owns: which keys Envoy takes: with one that it does not it would refuse the whole listener. May use: `rules`,
//! num-bigint. Never: keeps a private key, or more of a key than its public part.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use num_bigint::BigUint;
use serde_json::{Map, Value, json};

use super::matches::header_name;
use super::outside;
use super::report::Report;
use crate::finding::Code;
use crate::mesh::{Authorities, JwtKeys, JwtProvider, KeysUrl};
use crate::rules::mesh::{JwksSpec, JwtProviderSpec};

/// Providers by name.
pub(super) type Providers = BTreeMap<String, Arc<JwtProvider>>;

/// What the Mesh says of providers.
pub(super) fn providers(written: &[JwtProviderSpec], report: &mut Report<'_>) -> Providers {
    let mut providers = Providers::new();
    for (index, spec) in written.iter().enumerate() {
        let at = format!("/spec/jwtProviders/{index}");
        let name = spec.name.to_string();
        if spec.issuer.is_empty() {
            report.error(Code::InvalidValue, format!("{at}/issuer"), "an issuer has a name");
        }
        if let Some(header) = &spec.header {
            header_name(header, &format!("{at}/header"), report);
        }
        let audiences: BTreeSet<_> = spec.audiences.iter().cloned().collect();
        let (pointer, keys) = match &spec.jwks {
            JwksSpec::Inline(text) => (format!("{at}/jwks/inline"), key_set(text).map(JwtKeys::Inline)),
            JwksSpec::Url(url) => (format!("{at}/jwks/url"), keys_url(url).map(JwtKeys::Remote)),
        };
        let ca = spec.ca.as_ref().map(|ca| outside::authorities(ca, &format!("{at}/ca"), report));
        let keys = match keys {
            Ok(keys) => vouched(keys, ca, &format!("{at}/ca"), report),
            Err(reason) => {
                report.error(Code::InvalidValue, pointer, reason);
                continue;
            }
        };
        let header = spec.header.as_ref().map(|header| header.to_ascii_lowercase());
        let provider = JwtProvider {
            origin: report.origin(&at),
            name: name.clone(),
            issuer: spec.issuer.clone(),
            audiences,
            keys,
            header: header.filter(|header| header != "authorization"),
            forward: spec.forward.unwrap_or(false),
        };
        if providers.insert(name, Arc::new(provider)).is_some() {
            let message = format!("two providers are called {}", spec.name);
            report.error(Code::Duplicate, format!("{at}/name"), message);
        }
    }
    providers
}

/// The keys at a server for whom `ca` vouches.
fn vouched(keys: JwtKeys, ca: Option<Authorities>, at: &str, report: &mut Report<'_>) -> JwtKeys {
    match (keys, ca) {
        (JwtKeys::Remote(KeysUrl { tls: Some(_), host, port, url }), Some(ca)) => {
            JwtKeys::Remote(KeysUrl { tls: Some(ca), host, port, url })
        }
        (keys, Some(_)) => {
            let message = "no certificate is shown: the keys are not fetched by https";
            report.error(Code::InvalidValue, at, message).hint = Some("leave it out".to_owned());
            keys
        }
        (keys, None) => keys,
    }
}

fn keys_url(url: &str) -> Result<KeysUrl, String> {
    let invalid = || format!("{url:?} is no URL of keys: write https://HOST/PATH");
    let (tls, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Some(Authorities::System), rest),
        Some(("http", rest)) => (None, rest),
        _ => return Err(invalid()),
    };
    let graphic = |c: u8| c.is_ascii_graphic() && c != b'#';
    let (authority, _) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority).filter(|_| url.bytes().all(graphic)).ok_or_else(invalid)?;
    let port = port.or(NonZeroU16::new(if tls.is_some() { 443 } else { 80 })).ok_or_else(invalid)?;
    Ok(KeysUrl { tls, host: host.to_owned(), port, url: url.to_owned() })
}

/// A name or an address, the latter without brackets, and the port behind it, if one is written.
pub(super) fn host_and_port(authority: &str) -> Option<(&str, Option<NonZeroU16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let label = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
    let port = match port {
        None => None,
        Some(port) => Some(port.parse().ok()?),
    };
    (!host.is_empty() && host.bytes().all(label)).then_some((host, port))
}

/// The public part of a key set.
fn key_set(text: &str) -> Result<String, String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("the key set is no JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("a key set is {\"keys\": [...]}")?;
    let mut public = Vec::new();
    for (index, written) in keys.iter().enumerate() {
        let written = written.as_object().ok_or_else(|| format!("key {index} is no mapping"))?;
        // Those are for encryption.
        if written.get("use").and_then(Value::as_str).is_none_or(|purpose| purpose == "sig") {
            public.push(key(written).map_err(|reason| format!("key {index}: {reason}"))?);
        }
    }
    if public.is_empty() {
        return Err("the key set has no key that signs".to_owned());
    }
    Ok(json!({ "keys": public }).to_string())
}

/// The public part of a key that Envoy takes.
fn key(written: &Map<String, Value>) -> Result<Value, String> {
    let text = |name: &str| match written.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("{name} is no text")),
    };
    let number = |name: &str| {
        let text = text(name)?.ok_or_else(|| format!("{name} is missing"))?;
        let bytes = base64url(text).ok_or_else(|| format!("{name} is not base64url without padding"))?;
        Ok::<_, String>((text.to_owned(), bytes))
    };
    if ["d", "p", "q", "k"].iter().any(|private| written.contains_key(*private)) {
        return Err("it is not public: write the public key only".to_owned());
    }
    let kind = text("kty")?.ok_or("kty is missing")?;
    let (parts, algorithms): (Vec<(&str, String)>, &[&str]) = match kind {
        "RSA" => {
            let ((n, modulus), (e, exponent)) = (number("n")?, number("e")?);
            let (modulus, exponent) = (BigUint::from_bytes_be(&modulus), BigUint::from_bytes_be(&exponent));
            if !(2048..=8192).contains(&modulus.bits()) || !modulus.bit(0) {
                return Err("n is no modulus of 2048 to 8192 bits".to_owned());
            }
            if !(2..=32).contains(&exponent.bits()) || !exponent.bit(0) {
                return Err("e is no exponent".to_owned());
            }
            (vec![("n", n), ("e", e)], &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
        }
        "EC" => {
            let ((x, first), (y, second)) = (number("x")?, number("y")?);
            let name = text("crv")?.ok_or("crv is missing")?;
            let curve = CURVES.iter().find(|curve| curve.name == name);
            let curve = curve.ok_or("crv is one of P-256, P-384 and P-521")?;
            if !curve.has(&BigUint::from_bytes_be(&first), &BigUint::from_bytes_be(&second)) {
                return Err(format!("x and y are no point of {name}"));
            }
            (vec![("crv", name.to_owned()), ("x", x), ("y", y)], curve.algorithms)
        }
        "OKP" => {
            let (x, bytes) = number("x")?;
            if text("crv")? != Some("Ed25519") || bytes.len() != 32 {
                return Err("crv is Ed25519, and x has 32 bytes".to_owned());
            }
            (vec![("crv", "Ed25519".to_owned()), ("x", x)], &["EdDSA"])
        }
        _ => return Err("kty is one of RSA, EC and OKP".to_owned()),
    };
    let algorithm = text("alg")?;
    if algorithm.is_some_and(|algorithm| !algorithms.contains(&algorithm)) {
        return Err(format!("alg is one of {}", algorithms.join(", ")));
    }
    let named = [("kty", Some(kind)), ("alg", algorithm), ("kid", text("kid")?)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    let parts = parts.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
    Ok(Value::Object(named.chain(parts).collect()))
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0);
    for c in text.bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 6 && held == 0 && !bytes.is_empty()).then_some(bytes)
}

/// A curve y² = x³ - 3x + b over a prime.
struct Curve {
    name: &'static str,
    algorithms: &'static [&'static str],
    /// In hexadecimal.
    prime: &'static str,
    b: &'static str,
}

/// FIPS 186-4, D.1.2.
const CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        algorithms: &["ES256"],
        prime: "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
        b: "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
    },
    Curve {
        name: "P-384",
        algorithms: &["ES384"],
        prime: "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
        b: "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
    },
    Curve {
        name: "P-521",
        algorithms: &["ES512"],
        prime: concat!(
            "1ff",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        ),
        b: concat!(
            "051",
            "953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e1",
            "56193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00"
        ),
    },
];

// === impl Curve ===

impl Curve {
    fn has(&self, x: &BigUint, y: &BigUint) -> bool {
        let number = |hex: &str| BigUint::parse_bytes(hex.as_bytes(), 16).unwrap_or_default();
        let (prime, b) = (number(self.prime), number(self.b));
        let cubic = x * x * x + (&prime - 3u32) * x + b;
        *x < prime && *y < prime && (y * y) % &prime == cubic % &prime
    }
}
