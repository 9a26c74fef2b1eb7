//! Tokens through a real Envoy: who is admitted by what a token says, and what is answered to one that is not good.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{App, Authority, eventually};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// Who signs tokens.
struct Issuer {
    name: &'static str,
    pair: EcdsaKeyPair,
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let held = chunk.iter().fold(0u32, |held, byte| held << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |n| char::from(DIGITS[(held >> (18 - 6 * n)) as usize & 63]))
    });
    digits.collect()
}

// === impl Issuer ===

impl Issuer {
    fn new(name: &'static str) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let broken = |_| anyhow::anyhow!("no key");
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| broken(()))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Ok(Self { name, pair: pair.map_err(|_| broken(()))? })
    }

    /// Its public key.
    fn keys(&self) -> String {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": base64url(x), "y": base64url(y)});
        json!({ "keys": [key] }).to_string()
    }

    /// A token that says `claims`, signed by `self`, whoever it says issued it.
    fn token(&self, claims: Value) -> anyhow::Result<String> {
        let mut said = json!({"iss": self.name, "aud": "shop", "exp": 4_000_000_000u64});
        said.as_object_mut().context("a mapping")?.extend(claims.as_object().context("a mapping")?.clone());
        let head = base64url(json!({"alg": "ES256", "typ": "JWT"}).to_string().as_bytes());
        let signed = format!("{head}.{}", base64url(said.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| anyhow::anyhow!("not signed"))?;
        Ok(format!("{signed}.{}", base64url(signature.as_ref())))
    }
}

#[tokio::test]
async fn a_token_admits_by_what_it_says_and_keys_that_cannot_be_fetched_admit_nobody() -> anyhow::Result<()> {
    let (login, other, stranger) = (Issuer::new("login")?, Issuer::new("other")?, Issuer::new("login")?);
    let server = Port::reserve()?;
    let mesh = format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default, namespace: mesh-system}}\nspec:\n  \
         jwtProviders:\n  - {{name: login, issuer: login, audiences: [shop], jwks: {{inline: '{}'}}}}\n  \
         - {{name: other, issuer: other, header: x-other, forward: true, jwks: {{url: \"http://{}/keys\"}}}}\n---\n",
        login.keys(),
        server.loopback()
    );
    let policies = mesh
        + &rule(
            "AccessPolicy",
            "cart",
            r#"target: {service: cart}
default: deny
allow:
- {to: [{paths: [/login]}], jwt: {provider: login}}
- {to: [{paths: [/role]}], jwt: {provider: login, claims: {role: [customer, "ad.in"], "a/b.c": ["1"]}}}
- {from: [{service: web}], to: [{paths: [/web]}], jwt: {provider: login}}
- {to: [{paths: [/other]}], jwt: {provider: other}}
- to: [{paths: [/open]}]
deny:
- jwt: {provider: other, claims: {sub: [mallory]}}"#,
        );
    let shop = Shop::start(&policies, &[]).await?;
    let bearer = |token: &str| ("authorization", format!("Bearer {token}"));
    let ask = async |path: &str, headers: &[(&str, String)]| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        shop.ask(shop.cart_v1(), path, &headers).await
    };
    let good = login.token(json!({}))?;
    let role = |role: Value, more: &str| login.token(json!({"role": role, "a/b.c": more}));
    let cases = [
        ("/login", None, 403),
        ("/login", Some(good.clone()), 200),
        ("/login", Some(login.token(json!({"aud": "elsewhere"}))?), 403),
        ("/login", Some(login.token(json!({"exp": 1_000_000_000}))?), 401),
        ("/login", Some(login.token(json!({"iss": "nobody"}))?), 401),
        ("/login", Some(stranger.token(json!({}))?), 401),
        ("/login", Some("garbage".to_owned()), 401),
        ("/open", None, 200),
        ("/open", Some(good.clone()), 200),
        ("/open", Some(stranger.token(json!({}))?), 401),
        ("/role", Some(good.clone()), 403),
        ("/role", Some(role(json!("customer"), "1")?), 200),
        ("/role", Some(role(json!("admin"), "1")?), 403),
        ("/role", Some(role(json!("ad.in"), "1")?), 200),
        ("/role", Some(role(json!(["guest", "customer"]), "1")?), 200),
        ("/role", Some(role(json!(["guest"]), "1")?), 403),
        ("/role", Some(role(json!("customer"), "2")?), 403),
        ("/web", Some(good.clone()), 403),
    ];
    for (path, token, status) in &cases {
        let headers: Vec<_> = token.iter().map(|token| bearer(token)).collect();
        let answer = ask(path, &headers).await?;
        assert_eq!(answer.status, *status, "{path} {token:?}: {}", answer.body);
        if *status == 200 && token.is_some() {
            assert_eq!(answer.echo()?.headers.get("authorization"), None, "the application got the token");
        }
    }
    // A token in the query is none.
    assert_eq!(ask(&format!("/login?access_token={good}"), &[]).await?.status, 403);
    // An identity and a token.
    let token = bearer(&good);
    assert_eq!(shop.ask(shop.web_cart(), "/web", &[(token.0, &token.1)]).await?.status, 200);

    // There are no keys of the other provider, and no door is open for that.
    let theirs = ("x-other", other.token(json!({}))?);
    let mallory = ("x-other", other.token(json!({"sub": "mallory"}))?);
    for headers in [vec![theirs.clone()], vec![mallory.clone()]] {
        assert_eq!(ask("/other", &headers).await?.status, 401);
    }
    assert_eq!(ask("/other", &[]).await?.status, 403);
    let keys = App::text(server.loopback(), &other.keys()).await?;
    eventually(SOON, "keys that are fetched", async || {
        let answer = ask("/other", std::slice::from_ref(&theirs)).await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.echo()?.headers.contains_key("x-other"), "the application did not get the token");
        Ok(())
    })
    .await?;
    assert!(keys.served() > 0);
    assert_eq!(ask("/other", &[bearer(&good)]).await?.status, 403);
    // One good token beside it hides nothing.
    for headers in [vec![mallory.clone()], vec![bearer(&good), mallory.clone()]] {
        assert_eq!(ask("/open", &headers).await?.status, 403);
    }
    // Keys that go stay good for as long as they are kept.
    drop(keys);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ask("/other", &[theirs]).await?.status, 200);
    ensure!(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() < 4_000_000_000, "the tokens expired");
    Ok(())
}

#[tokio::test]
async fn keys_come_by_https_from_a_server_that_an_authority_vouches_for() -> anyhow::Result<()> {
    let (near, far) = (Issuer::new("near")?, Issuer::new("far")?);
    let (authority, stranger) = (Authority::new("keys")?, Authority::new("stranger")?);
    let near_keys = App::text_by_tls(&authority, "localhost", &near.keys()).await?;
    let far_keys = App::text_by_tls(&authority, "localhost", &far.keys()).await?;
    let provider = |name: &str, keys: &App, by: &Authority| {
        let url = format!("https://localhost:{}/keys", keys.address().port());
        format!("{{name: {name}, issuer: {name}, jwks: {{url: \"{url}\"}}, ca: {{inline: {:?}}}}}", by.pem)
    };
    let policies = format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default, namespace: mesh-system}}\n\
         spec: {{jwtProviders: [{}, {}]}}\n---\n",
        provider("near", &near_keys, &authority),
        provider("far", &far_keys, &stranger)
    ) + &rule(
        "AccessPolicy",
        "cart",
        "target: {service: cart}\ndefault: deny\nallow: [{jwt: {provider: near}}, {jwt: {provider: far}}]",
    );
    let shop = Shop::start(&policies, &[]).await?;
    let ask = async |issuer: &Issuer| {
        let bearer = format!("Bearer {}", issuer.token(json!({}))?);
        anyhow::Ok(shop.ask(shop.cart_v1(), "/", &[("authorization", &bearer)]).await?.status)
    };
    eventually(SOON, "keys that are fetched", async || {
        let status = ask(&near).await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    assert!(near_keys.served() > 0);
    // For that server somebody vouches whom nobody has named.
    assert_eq!((ask(&far).await?, far_keys.served()), (401, 0));
    Ok(())
}
