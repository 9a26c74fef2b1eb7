//! Credentials: whom they name, and when they end.

use std::fs;

use proptest::prelude::*;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;
use translators::name::QualifiedName;

use super::revocation::Scope;
use super::*;
use crate::ca::leaf::{self, Profile};
use crate::ca::{Authorities, Leaf};

const YEAR: Duration = Duration::from_secs(365 * 86400);

struct World {
    data: TempDir,
    authorities: Authorities,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let authorities = Authorities::open_or_create(data.path()).expect("created");
        Self { data, authorities, clock: Clock::starting_at(SystemTime::now()) }
    }

    fn identities(&self) -> Identities {
        Identities::open(&self.authorities.control, self.data.path(), self.clock.clone()).expect("opened")
    }

    /// Issues a credential, revoking what came before for `scope`.
    fn issue(
        &self,
        workload: Option<&str>,
        node_id: &str,
        ttl: Duration,
        scope: Option<Scope>,
    ) -> Vec<CertificateDer<'static>> {
        let list = RevocationList::new(self.data.path()).lock().expect("locked");
        let workload = workload.map(|name| name.parse().expect("a name"));
        let subject = list.subject(workload, node_id.parse().expect("a node id"), self.clock.now(), scope.as_ref());
        let credential = credential::issue(&self.authorities.control, &subject, ttl, self.clock.now()).expect("issued");
        if let Some(scope) = scope {
            list.revoke_before(scope, &subject).expect("revoked");
        }
        chain(&credential.chain_pem)
    }

    fn leaf(&self, authority: &Authority, profile: Profile<'_>) -> Vec<CertificateDer<'static>> {
        let leaf: Leaf = leaf::issue(authority, profile, YEAR, self.clock.now()).expect("issued");
        chain(&leaf.chain_pem)
    }
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|certificate| certificate.expect("PEM")).collect()
}

fn shop_cart() -> Scope {
    Scope::Workload("shop/cart".parse().expect("a name"))
}

/// Whom `credential` names, and until when, in short.
fn named(credential: Result<ProxyCredential, IdentityError>) -> Result<(Option<String>, String), IdentityError> {
    credential.map(|it| (it.workload.map(|workload| workload.to_string()), it.node_id.to_string()))
}

#[test]
fn a_credential_names_its_workload_and_node() {
    let world = World::new();
    let identities = world.identities();
    let of_workload = world.issue(Some("shop/cart"), "cart-1", YEAR, None);
    assert_eq!(named(identities.verify_chain(&of_workload)), Ok((Some("shop/cart".into()), "cart-1".into())));
    let of_node = world.issue(None, "edge", YEAR, None);
    assert_eq!(named(identities.verify_chain(&of_node)), Ok((None, "edge".into())));
}

#[test]
fn whoever_has_no_credential_of_ours_is_nobody() {
    let world = World::new();
    let identities = world.identities();
    assert_eq!(identities.verify_chain(&[]), Err(IdentityError::Missing));
    assert_eq!(identities.verify(&http::Extensions::new()), Err(IdentityError::Missing));

    let uri = "chancery://proxy/cart-1?workload=shop/cart&issued=1";
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an id");
    let names = ["chancery".to_owned()];
    let (mesh, control) = (&world.authorities.mesh, &world.authorities.control);
    let untrusted = [
        world.leaf(mesh, Profile::Workload(&id)),
        world.leaf(mesh, Profile::Proxy(uri)),
        world.leaf(control, Profile::Server(&names)),
        World::new().leaf(&World::new().authorities.control, Profile::Proxy(uri)),
        vec![CertificateDer::from(vec![0x30, 0])],
    ];
    for chain in untrusted {
        assert!(matches!(identities.verify_chain(&chain), Err(IdentityError::Untrusted(_))));
    }
    let identity = world.leaf(control, Profile::Workload(&id));
    let malformed = IdentityError::Malformed(CredentialError::Uri(id.to_string()));
    assert_eq!(identities.verify_chain(&identity), Err(malformed));
}

#[tokio::test(start_paused = true)]
async fn a_credential_ends_with_its_time() {
    let world = World::new();
    let identities = world.identities();
    let chain = world.issue(Some("shop/cart"), "cart-1", Duration::from_secs(3600), None);
    let credential = identities.verify_chain(&chain).expect("valid");
    let start = tokio::time::Instant::now();
    assert_eq!(identities.ended(&credential).await, IdentityError::Expired);
    assert!((3599..=3600).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(identities.verify_chain(&chain), Err(IdentityError::Expired));
}

#[test]
fn revocation_ends_what_came_before_and_nothing_else() {
    let world = World::new();
    let first = world.issue(Some("shop/cart"), "cart-1", YEAR, None);
    let second = world.issue(Some("shop/cart"), "cart-2", YEAR, None);
    let other = world.issue(Some("shop/web"), "cart-1", YEAR, None);
    let bare = world.issue(None, "edge", YEAR, None);

    let of_node = world.issue(Some("shop/cart"), "cart-2", YEAR, Some(Scope::Node("cart-2".parse().expect("an id"))));
    let refused = |chain: &Vec<_>| world.identities().verify_chain(chain).err();
    let all = [&first, &second, &other, &bare, &of_node];
    assert_eq!(all.map(refused), [None, Some(IdentityError::Revoked), None, None, None]);

    let of_workload = world.issue(Some("shop/cart"), "cart-3", YEAR, Some(shop_cart()));
    let all = [&first, &second, &other, &bare, &of_node, &of_workload];
    let revoked = || Some(IdentityError::Revoked);
    assert_eq!(all.map(refused), [revoked(), revoked(), None, None, revoked(), None]);

    // Within the same moment, too, and again and again.
    let next = world.issue(Some("shop/cart"), "cart-3", YEAR, Some(shop_cart()));
    assert_eq!([&of_workload, &next].map(refused), [revoked(), None]);
}

#[tokio::test(start_paused = true)]
async fn a_running_server_takes_up_a_revocation_and_survives_a_broken_list() {
    let world = World::new();
    let identities = Arc::new(world.identities());
    let chain = world.issue(Some("shop/cart"), "cart-1", YEAR, None);
    let credential = identities.verify_chain(&chain).expect("valid");
    let path = world.data.path().join("identity/revoked.json");
    let stop = CancellationToken::new();
    let watch = Arc::clone(&identities).watch(stop.clone());
    let story = async {
        world.issue(Some("shop/cart"), "cart-2", YEAR, Some(shop_cart()));
        let start = tokio::time::Instant::now();
        let ended = tokio::time::timeout(POLL * 10, identities.ended(&credential));
        assert_eq!(ended.await, Ok(IdentityError::Revoked));
        assert!(start.elapsed() <= POLL, "{:?}", start.elapsed());
        for broken in ["", "{\"workloads\": {\"shop\": 1}}"] {
            fs::write(&path, broken).expect("written");
            tokio::time::sleep(POLL * 2).await;
            assert_eq!(identities.verify_chain(&chain), Err(IdentityError::Revoked));
        }
        fs::remove_file(&path).expect("removed");
        tokio::time::sleep(POLL * 2).await;
        assert_eq!(identities.verify_chain(&chain), Err(IdentityError::Revoked));
        stop.cancel();
    };
    let (watched, ()) = tokio::join!(watch, story);
    watched.expect("no error");
}

#[tokio::test(start_paused = true)]
async fn a_connection_older_than_the_end_of_its_credential_lets_nobody_in() {
    let world = World::new();
    let identities = world.identities();
    let on_connection = |chain: &[CertificateDer<'static>]| {
        let peer = connection::Peer::at(([127, 0, 0, 1], 1).into());
        peer.showed(identities.verify_chain(chain));
        let mut extensions = http::Extensions::new();
        extensions.insert(peer);
        extensions
    };
    let brief = on_connection(&world.issue(Some("shop/cart"), "cart-1", Duration::from_secs(3600), None));
    let long = on_connection(&world.issue(Some("shop/cart"), "cart-2", YEAR, None));
    let nobody = on_connection(&[]);
    let refused = |extensions| identities.verify(extensions).err();
    assert_eq!([&brief, &long, &nobody].map(refused), [None, None, Some(IdentityError::Missing)]);
    tokio::time::advance(Duration::from_secs(3601)).await;
    assert_eq!([&brief, &long].map(refused), [Some(IdentityError::Expired), None]);

    world.issue(Some("shop/cart"), "cart-3", YEAR, Some(shop_cart()));
    identities.revocations.send_replace(Arc::new(identities.list.read().expect("a list")));
    assert_eq!(refused(&long), Some(IdentityError::Revoked));

    // Before the handshake is over nothing is known of the peer.
    let mut unknown = http::Extensions::new();
    unknown.insert(connection::Peer::at(([127, 0, 0, 1], 1).into()));
    assert_eq!(refused(&unknown), Some(IdentityError::Missing));
}

#[test]
fn a_broken_list_refuses_to_start() {
    let world = World::new();
    world.issue(Some("shop/cart"), "cart-1", YEAR, Some(shop_cart()));
    let path = world.data.path().join("identity/revoked.json");
    fs::write(&path, "{\"workload\": {}}").expect("written");
    let opened = Identities::open(&world.authorities.control, world.data.path(), world.clock.clone());
    let expected = format!(
        "{}: must hold {{\"workloads\": {{\"<namespace>/<name>\": <ms>}}, \"nodes\": {{\"<id>\": <ms>}}}}; restore it \
         from a backup",
        path.display()
    );
    assert_eq!(opened.expect_err("refused").to_string(), expected);
    // And nothing is issued past it.
    assert!(RevocationList::new(world.data.path()).lock().is_err());
    assert_eq!(fs::read_to_string(&path).expect("there"), "{\"workload\": {}}");
}

#[test]
fn a_clock_that_went_back_issues_nothing_that_is_revoked() {
    let world = World::new();
    let later = world.issue(Some("shop/cart"), "cart-1", YEAR, Some(shop_cart()));
    let list = RevocationList::new(world.data.path()).lock().expect("locked");
    let name: QualifiedName = "shop/cart".parse().expect("a name");
    let past = world.clock.now() - Duration::from_secs(86400);
    let subject = list.subject(Some(name), "cart-2".parse().expect("an id"), past, None);
    let before = credential::read(later.first().expect("one")).expect("a credential").issued;
    assert_eq!(subject.issued, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_node_id_comes_back(node in "[!-~]{1,255}", workload in proptest::option::of("[a-z]{1,9}/[a-z]{1,9}")) {
        let subject = credential::Subject {
            workload: workload.map(|name| name.parse().expect("a name")),
            node_id: node.parse().expect("a node id"),
            issued: 1_900_000_000_000,
        };
        let control = control();
        let issued = credential::issue(control, &subject, YEAR, SystemTime::now()).expect("issued");
        let read = credential::read(chain(&issued.chain_pem).first().expect("one")).expect("a credential");
        prop_assert_eq!(
            (read.workload, read.node_id, read.issued, read.not_after),
            (subject.workload, subject.node_id, subject.issued, issued.not_after)
        );
    }

    #[test]
    fn a_uri_is_read_in_its_one_form_only(uri in "chancery://proxy/[a-z%0-9A-F]{0,6}[?]{0,2}(workload=[a-z]{1,3}/[a-z]{1,3}&)?(issued=)?[0-9+]{0,4}") {
        let control = control();
        let leaf = leaf::issue(control, Profile::Proxy(&uri), YEAR, SystemTime::now()).expect("issued");
        let chain = chain(&leaf.chain_pem);
        if let Ok(read) = credential::read(chain.first().expect("one")) {
            let subject = credential::Subject { workload: read.workload, node_id: read.node_id, issued: read.issued };
            let again = credential::issue(control, &subject, YEAR, SystemTime::now()).expect("issued");
            let again = super::tests::chain(&again.chain_pem);
            let uri_of = |der: &CertificateDer<'_>| String::from_utf8_lossy(der).contains(&uri);
            prop_assert!(again.first().is_some_and(uri_of));
        }
    }
}

fn control() -> &'static Authority {
    static CONTROL: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(|| World::new().authorities.control);
    &CONTROL
}

#[test]
fn hostile_node_ids_are_refused_or_harmless() {
    for refused in ["", "a b", "a\r\nb", "a\tb", "\u{e9}", "a\u{202e}b", "a\0b", &"x".repeat(256)] {
        assert_eq!(refused.parse::<NodeId>(), Err(InvalidNodeId(refused.to_owned())));
    }
    let world = World::new();
    let identities = world.identities();
    for node in ["..", "../../etc", "a\"b'c`", "a?workload=shop/web&issued=0", "%2e%2E", "{{x}}", "a#b", "*"] {
        let chain = world.issue(Some("shop/cart"), node, YEAR, None);
        assert_eq!(named(identities.verify_chain(&chain)), Ok((Some("shop/cart".into()), node.into())));
    }
}

#[test]
fn debug_shows_no_key() {
    let world = World::new();
    let subject = credential::Subject { workload: None, node_id: "edge".parse().expect("an id"), issued: 1 };
    let credential = credential::issue(&world.authorities.control, &subject, YEAR, SystemTime::now()).expect("issued");
    let key = credential.key_pem.lines().nth(1).expect("a line of the key").to_owned();
    assert!(!format!("{credential:?}{:?}", world.identities()).contains(&key));
}
