//! Scalars of the rule language: texts that mean something.
//!
//! Owns: durations, addresses, relative names, retry conditions and patterns, each parsed once. May use:
//! `name`, ranges of addresses of `mesh`. Never: looks a name up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::mesh::Network;
use crate::name::{InvalidLabel, Label, QualifiedName};

/// A length of time: `600ms`, `2s`, `1m30s`, `24h`; at most 365 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Where something listens: an IP address and a port, `127.0.0.1:9001` or `[::1]:9001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

/// The name of an object: `cart` in the same namespace, or `shop/cart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativeName {
    /// The namespace, when written.
    pub namespace: Option<Label>,
    /// The name.
    pub name: Label,
}

/// A service account: `cart` in the same namespace, or `shop/cart`; the name may contain dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountName {
    /// The namespace, when written.
    pub namespace: Option<Label>,
    /// The account.
    pub account: String,
}

/// An HTTP method, in capitals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(pub String);

/// Addresses: one, `10.1.2.3` or `fd00::1`, or all that begin alike, `10.0.0.0/8` or `fd00::/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses(pub Network);

/// A share in percent, 0 to 100, in steps of a ten-thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    /// In ten-thousandths of a percent, as Envoy counts: 1,000,000 is all.
    pub millionths: u32,
}

/// Why a text is no scalar of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScalar {
    /// Not a duration.
    #[error("{0:?} is not a duration: write numbers with h, m, s or ms, such as 600ms, 2s, 1m30s or 24h")]
    Span(String),
    /// Too long.
    #[error("{0:?} is longer than 365 days")]
    TooLong(String),
    /// Not an address.
    #[error("{0:?} is not an address: write an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080")]
    Address(String),
    /// No port.
    #[error("{0:?} names no port: 0 is not a port")]
    NoPort(String),
    /// Not a service account.
    #[error("{0:?} is not a service account: write account or namespace/account")]
    Account(String),
    /// Not addresses.
    #[error("{0:?} is no address or range of addresses: write 10.1.2.3, 10.0.0.0/8, fd00::1 or fd00::/16")]
    Addresses(String),
    /// A range that does not begin where its length says.
    #[error("{given:?} has bits beyond its first {}: write {begins}", begins.length)]
    BeyondLength {
        /// What was written.
        given: String,
        /// The range that it lies in.
        begins: Network,
    },
    /// Addresses of IPv4 in the form of IPv6.
    #[error("{0:?} are addresses of IPv4: write them as such")]
    Mapped(String),
    /// Not a method.
    #[error("{0:?} is not an HTTP method: methods are written in capitals, such as GET")]
    Method(String),
}

// === impl Span ===

impl FromStr for Span {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidScalar::Span(text.to_owned());
        let mut rest = text;
        let mut total = 0u64;
        let mut last = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let millis = match &rest[..unit] {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1000,
                "ms" => 1,
                _ => return Err(invalid()),
            };
            rest = &rest[unit..];
            if millis >= last {
                return Err(invalid());
            }
            last = millis;
            total = total.saturating_add(number.saturating_mul(millis));
        }
        match total {
            _ if text.is_empty() => Err(invalid()),
            0..=31_536_000_000 => Ok(Self(Duration::from_millis(total))),
            _ => Err(InvalidScalar::TooLong(text.to_owned())),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

// === impl ListenAddress ===

impl FromStr for ListenAddress {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address: SocketAddr = text.parse().map_err(|_| InvalidScalar::Address(text.to_owned()))?;
        if address.port() == 0 { Err(InvalidScalar::NoPort(text.to_owned())) } else { Ok(Self(address)) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl RelativeName ===

impl RelativeName {
    /// The full name, seen from the namespace `home`.
    pub fn within(&self, home: &Label) -> QualifiedName {
        QualifiedName::new(self.namespace.clone().unwrap_or_else(|| home.clone()), self.name.clone())
    }
}

impl FromStr for RelativeName {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('/') {
            Some((namespace, name)) => Self { namespace: Some(namespace.parse()?), name: name.parse()? },
            None => Self { namespace: None, name: text.parse()? },
        })
    }
}

impl fmt::Display for RelativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

// === impl AccountName ===

impl FromStr for AccountName {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidScalar::Account(text.to_owned());
        let (namespace, account) = match text.split_once('/') {
            Some((namespace, account)) => (Some(namespace.parse().map_err(|_| invalid())?), account),
            None => (None, text),
        };
        let valid = account.len() <= 253 && account.split('.').all(|part| part.parse::<Label>().is_ok());
        if valid { Ok(Self { namespace, account: account.to_owned() }) } else { Err(invalid()) }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.account),
            None => f.write_str(&self.account),
        }
    }
}

// === impl Method ===

impl FromStr for Method {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = !text.is_empty() && text.len() <= 64 && text.bytes().all(|c| c.is_ascii_uppercase() || c == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidScalar::Method(text.to_owned())) }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Addresses ===

impl FromStr for Addresses {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidScalar::Addresses(text.to_owned());
        let (address, length) = match text.split_once('/') {
            // A number as people write it: no sign, no zeros before it.
            Some((address, length)) if length == "0" || !length.starts_with(['0', '+']) => {
                (address, Some(length.parse().map_err(|_| invalid())?))
            }
            Some(_) => return Err(invalid()),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let whole = Network::host(address).length;
        let network = Network { address, length: length.unwrap_or(whole) };
        if network.length > whole {
            return Err(invalid());
        }
        let begins = network.first();
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(InvalidScalar::Mapped(text.to_owned())),
            _ if begins != network => Err(InvalidScalar::BeyondLength { given: text.to_owned(), begins }),
            _ => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads `T` from a text; anything but a text is refused with what belongs there.
pub(super) struct TextOf<T> {
    pub(super) wanted: &'static str,
    pub(super) read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextOf<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(E::custom)
    }
}

/// Every scalar is read from, written as and described as a text.
macro_rules! text {
    ($($name:ident: $wanted:literal, $title:literal, $example:literal, $pattern:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextOf {
                    wanted: $wanted,
                    read: |text| text.parse().map_err(|error: <Self as std::str::FromStr>::Err| error.to_string()),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": $title, "examples": [$example], "pattern": $pattern })
            }
        }
    )*};
}
pub(super) use text;

text! {
    Span: "a duration such as 600ms, 2s, 1m30s or 24h", "duration (600ms, 2s, 1m30s, 24h)", "2s", r"^(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$";
    ListenAddress: "an address such as 127.0.0.1:8080", "IP address and port", "127.0.0.1:9001", r"^.+:\d+$";
    RelativeName: "a string", "name, or namespace/name", "cart", r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    AccountName: "a string", "service account: name, or namespace/name", "front/web", r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[-.a-z0-9]+$";
    Method: "a string", "HTTP method in capitals", "GET", r"^[A-Z-]+$";
    Addresses: "a string", "IP address or range", "10.0.0.0/8", r"^[0-9a-fA-F:.]+(/\d{1,3})?$";
}

// === impl Percent ===

impl Percent {
    /// All of them.
    pub const ALL: Self = Self { millionths: 1_000_000 };
}

/// A number in percent.
struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 0 to 100")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Percent, E> {
        let millionths = u32::try_from(number).ok().filter(|number| *number <= 100).map(|number| number * 10_000);
        millionths
            .map(|millionths| Percent { millionths })
            .ok_or_else(|| E::custom(format!("{number} is no share in percent: write a number from 0 to 100")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Percent, E> {
        let number = u64::try_from(number);
        number
            .map_err(|_| E::custom("a share is not negative: write a number from 0 to 100"))
            .and_then(|n| self.visit_u64(n))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Percent, E> {
        let millionths = (number * 10_000.0).round();
        if !(0.0..=1_000_000.0).contains(&millionths) {
            return Err(E::custom(format!("{number} is no share in percent: write a number from 0 to 100")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number up to a million")]
        Ok(Percent { millionths: millionths as u32 })
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_f64(PercentVisitor)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.millionths % 10_000 {
            0 => serializer.serialize_u32(self.millionths / 10_000),
            _ => serializer.serialize_f64(f64::from(self.millionths) / 10_000.0),
        }
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 100, "examples": [5] })
    }
}

/// A setting that may be left alone, set back to the built-in value with `null`, or given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Setting<T> {
    /// Not written: the level below decides.
    #[default]
    Inherit,
    /// `null`: the built-in value, past every level.
    BuiltIn,
    /// A value.
    Given(T),
}

// === impl Setting ===

impl<T> Setting<T> {
    /// Whether it is not written.
    pub fn is_inherit(&self) -> bool {
        matches!(self, Self::Inherit)
    }

    /// The same by reference.
    pub fn as_ref(&self) -> Setting<&T> {
        match self {
            Self::Inherit => Setting::Inherit,
            Self::BuiltIn => Setting::BuiltIn,
            Self::Given(value) => Setting::Given(value),
        }
    }

    /// What is written of a member: `null` is that for all members.
    pub fn within<U>(&self, member: impl FnOnce(&T) -> Setting<U>) -> Setting<U> {
        match self {
            Self::Inherit => Setting::Inherit,
            Self::BuiltIn => Setting::BuiltIn,
            Self::Given(value) => member(value),
        }
    }

    /// The same with another form of the value.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Setting<U> {
        match self {
            Self::Inherit => Setting::Inherit,
            Self::BuiltIn => Setting::BuiltIn,
            Self::Given(value) => Setting::Given(form(value)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::BuiltIn, Self::Given))
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inherit | Self::BuiltIn => serializer.serialize_none(),
            Self::Given(value) => value.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Setting<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis, shown) in [
            ("600ms", 600, "600ms"),
            ("2s", 2000, "2s"),
            ("1m30s", 90_000, "1m30s"),
            ("24h", 86_400_000, "24h"),
            ("90s", 90_000, "1m30s"),
            ("0s", 0, "0s"),
        ] {
            let span = Span(Duration::from_millis(millis));
            assert_eq!(text.parse(), Ok(span), "{text}");
            assert_eq!(span.to_string(), shown);
        }
        for text in ["", "2", "s", "1.5s", "-1s", "2 s", "1s1m", "1s1s", "1d", "99999999999999999999s", "1ß"] {
            assert_eq!(text.parse::<Span>(), Err(InvalidScalar::Span(text.to_owned())), "{text}");
        }
        assert_eq!("8761h".parse::<Span>(), Err(InvalidScalar::TooLong("8761h".to_owned())));
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:80", "[::1]:80", "0.0.0.0:65535"] {
            assert_eq!(text.parse::<ListenAddress>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "80", ":80", "localhost:80", "127.0.0.1", "127.0.0.1:65536", "::1:80x"] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidScalar::Address(text.to_owned())), "{text}");
        }
        assert_eq!("127.0.0.1:0".parse::<ListenAddress>(), Err(InvalidScalar::NoPort("127.0.0.1:0".to_owned())));
    }

    #[test]
    fn accounts_may_contain_dots() {
        for text in ["cart", "shop/cart", "shop/cart.v1"] {
            assert_eq!(text.parse::<AccountName>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "/", "shop/", "/cart", "a//b", "a/b/c", "A", "a..b"] {
            assert_eq!(text.parse::<AccountName>(), Err(InvalidScalar::Account(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn methods_are_written_in_capitals() {
        assert_eq!("GET".parse(), Ok(Method("GET".to_owned())));
        for text in ["", "get", "GET POST", "*"] {
            assert_eq!(text.parse::<Method>(), Err(InvalidScalar::Method(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn addresses_alone_and_by_range() {
        for (text, shown) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1", "fd00::1/128"),
            ("FD00::/16", "fd00::/16"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Addresses>().map(|addresses| addresses.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/08", "a"]
        {
            assert_eq!(text.parse::<Addresses>(), Err(InvalidScalar::Addresses(text.to_owned())), "{text}");
        }
        let said = |text: &str| text.parse::<Addresses>().expect_err("a mistake").to_string();
        assert_eq!(said("10.1.2.3/8"), "\"10.1.2.3/8\" has bits beyond its first 8: write 10.0.0.0/8");
        assert_eq!(said("fd00::1/16"), "\"fd00::1/16\" has bits beyond its first 16: write fd00::/16");
        assert_eq!(said("::ffff:10.0.0.1"), "\"::ffff:10.0.0.1\" are addresses of IPv4: write them as such");
    }
}
