//! Renewal on a paused clock, and what a restart finds.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::ca::authority::Purpose;

const TTL: Duration = Duration::from_secs(10);

/// A running issuer with its two channels.
struct Running {
    wanted: watch::Sender<Arc<Wanted>>,
    issued: watch::Receiver<Arc<Issued>>,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    #[expect(clippy::disallowed_methods, reason = "the task under test runs beside the test")]
    fn start(data: &TempDir, clock: &Clock, wanted: Wanted) -> Self {
        let authority = Arc::new(Authority::open_or_create(data.path(), Purpose::Mesh).expect("opened"));
        let (wanted, wanted_receiver) = watch::channel(Arc::new(wanted));
        let (issued_sender, issued) = watch::channel(Arc::new(Issued::none(&authority)));
        let stop = CancellationToken::new();
        let issuer = Issuer::new(authority, data.path(), clock.clone());
        let task = tokio::spawn(issuer.run(wanted_receiver, issued_sender, stop.clone()));
        Self { wanted, issued, stop, task }
    }

    async fn next(&mut self) -> Arc<Issued> {
        let changed = tokio::time::timeout(Duration::from_secs(600), self.issued.changed());
        changed.await.expect("published in time").expect("the issuer runs");
        Arc::clone(&self.issued.borrow_and_update())
    }

    /// Changes what is wanted and waits for the answer.
    async fn want(&mut self, wanted: Wanted) -> Arc<Issued> {
        self.wanted.send_replace(Arc::new(wanted));
        self.next().await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("no error");
    }
}

fn workload(name: &str) -> QualifiedName {
    name.parse().expect("a name")
}

fn wanted(leaf_ttl: Duration, identities: &[(&str, &str)]) -> Wanted {
    let identity = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an id");
    let identities = identities.iter().map(|(name, account)| (workload(name), identity(account))).collect();
    Wanted { identities, leaf_ttl }
}

fn clock() -> Clock {
    Clock::starting_at(SystemTime::now())
}

fn serial<'a>(issued: &'a Issued, name: &str) -> &'a str {
    &issued.certificates.get(&workload(name)).expect("issued").serial
}

#[tokio::test(start_paused = true)]
async fn leaves_are_renewed_at_half_of_their_life() {
    let data = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let mut running = Running::start(&data, &clock, wanted(TTL, &[("shop/cart", "cart")]));
    let mut serials = Vec::new();
    let mut gaps = Vec::new();
    let mut last = None;
    for _ in 0..30 {
        let issued = running.next().await;
        let issuance = issued.certificates.get(&workload("shop/cart")).expect("issued");
        let now = clock.now();
        assert!(issuance.not_before <= now && issuance.not_after > now + Duration::from_secs(8));
        assert!(issuance.not_after <= now + TTL);
        serials.push(issuance.serial.clone());
        gaps.extend(last.map(|last: Instant| last.elapsed()));
        last = Some(Instant::now());
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 30);
    // A certificate ends with a whole second, so that the life of this one is 9 to 10 s.
    let within = |gap: &Duration| (Duration::from_millis(4050)..=Duration::from_millis(5510)).contains(gap);
    assert!(gaps.iter().all(within), "{gaps:?}");
    let spread = gaps.iter().max().expect("29").saturating_sub(*gaps.iter().min().expect("29"));
    assert!(spread > Duration::from_millis(100), "no jitter: {gaps:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn renewals_that_come_due_together_are_published_together() {
    let data = tempfile::tempdir().expect("a directory");
    let names: Vec<_> = (0..200).map(|n| format!("shop/cart-{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "cart")).collect();
    let mut running = Running::start(&data, &clock(), wanted(TTL, &all));
    let first = running.next().await;
    let mut publications = 0;
    let is_old = |issued: Arc<Issued>| names.iter().any(|name| serial(&issued, name) == serial(&first, name));
    while is_old(running.next().await) {
        publications += 1;
    }
    // They come due over a second, and each publication leaves a fifth of one free.
    assert!((3..=7).contains(&publications), "{publications}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_nothing_and_keeps_the_moment_of_renewal() {
    let data = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let both = wanted(TTL, &[("shop/cart", "cart"), ("shop/web", "web")]);
    let mut running = Running::start(&data, &clock, both.clone());
    let before = running.next().await;
    running.stop().await;

    tokio::time::advance(Duration::from_secs(3)).await;
    let mut running = Running::start(&data, &clock, both);
    assert_eq!(running.next().await, before);
    // And the renewal comes when it would have come.
    let first = before.certificates.values().map(|issuance| issuance.renew_at).min().expect("two");
    running.next().await;
    let late = clock.now().duration_since(first).expect("not before");
    assert!(late < Duration::from_millis(10), "{late:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_issued_anew() {
    let data = tempfile::tempdir().expect("a directory");
    let hour = Duration::from_secs(3600);
    let both = wanted(hour, &[("shop/cart", "cart"), ("shop/web", "web")]);
    let mut running = Running::start(&data, &clock(), both.clone());
    let first = running.next().await;

    let renamed = running.want(wanted(hour, &[("shop/cart", "basket"), ("shop/web", "web")])).await;
    assert_ne!(serial(&renamed, "shop/cart"), serial(&first, "shop/cart"));
    assert_eq!(renamed.certificates.get(&workload("shop/web")), first.certificates.get(&workload("shop/web")));

    let fewer = running.want(wanted(hour, &[("shop/web", "web")])).await;
    assert_eq!(fewer.certificates.keys().collect::<Vec<_>>(), [&workload("shop/web")]);
    let files: Vec<_> = fs::read_dir(data.path().join("ca/leaves"))
        .expect("a directory")
        .map(|entry| entry.expect("listed"))
        .map(|entry| (entry.file_name(), entry.metadata().expect("there").permissions().mode() & 0o7777))
        .collect();
    assert_eq!(files, [("shop.web.json".into(), 0o600)]);

    let shorter = running.want(wanted(hour / 2, &[("shop/web", "web")])).await;
    assert_ne!(serial(&shorter, "shop/web"), serial(&first, "shop/web"));

    // A workload that comes back gets another leaf: the old one was forgotten.
    let back = running.want(wanted(hour / 2, &[("shop/cart", "basket"), ("shop/web", "web")])).await;
    assert_ne!(serial(&back, "shop/cart"), serial(&renamed, "shop/cart"));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_does_not_fit_is_passed_over() {
    type Damage = fn(&std::path::Path);
    let table: [(&str, Damage); 6] = [
        ("empty", |data| fs::write(data.join("ca/leaves/shop.cart.json"), "").unwrap()),
        ("of another workload", |data| {
            assert!(fs::copy(data.join("ca/leaves/shop.web.json"), data.join("ca/leaves/shop.cart.json")).is_ok());
        }),
        ("another identity", |data| edit(data, |leaf, _| leaf["identity"] = "spiffe://cluster.local/x".into())),
        ("another key", |data| edit(data, |leaf, other| leaf["key"] = other["key"].clone())),
        ("another ttl", |data| edit(data, |leaf, _| leaf["ttl"]["secs"] = 11.into())),
        ("another root", |data| {
            let other = tempfile::tempdir().unwrap();
            Authority::open_or_create(other.path(), Purpose::Mesh).unwrap();
            for file in ["ca/mesh.pem", "ca/mesh.key"] {
                assert!(fs::copy(other.path().join(file), data.join(file)).is_ok());
            }
        }),
    ];
    for (name, damage) in table {
        let data = tempfile::tempdir().expect("a directory");
        let clock = clock();
        let both = wanted(TTL, &[("shop/cart", "cart"), ("shop/web", "web")]);
        let mut running = Running::start(&data, &clock, both.clone());
        let before = running.next().await;
        running.stop().await;
        damage(data.path());
        let mut running = Running::start(&data, &clock, both);
        let after = running.next().await;
        assert_ne!(serial(&after, "shop/cart"), serial(&before, "shop/cart"), "{name}");
        let identity = after.certificates.get(&workload("shop/cart")).map(|issuance| issuance.identity.to_string());
        assert_eq!(identity.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"), "{name}");
        assert_eq!(serial(&after, "shop/web") == serial(&before, "shop/web"), name != "another root", "{name}");
        running.stop().await;
    }
}

fn edit(data: &std::path::Path, change: fn(&mut serde_json::Value, &serde_json::Value)) {
    let path = |name: &str| data.join("ca/leaves").join(name);
    let read = |name: &str| serde_json::from_slice(&fs::read(path(name)).expect("a file")).expect("JSON");
    let mut leaf = read("shop.cart.json");
    change(&mut leaf, &read("shop.web.json"));
    fs::write(path("shop.cart.json"), leaf.to_string()).expect("written");
}

#[tokio::test(start_paused = true)]
async fn the_files_of_expired_leaves_go() {
    let data = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let mut running = Running::start(&data, &clock, wanted(TTL, &[("shop/cart", "cart")]));
    running.next().await;
    running.stop().await;
    tokio::time::advance(TTL).await;
    let running = Running::start(&data, &clock, wanted(TTL, &[]));
    tokio::time::sleep(Duration::from_millis(1)).await;
    running.stop().await;
    assert_eq!(fs::read_dir(data.path().join("ca/leaves")).expect("a directory").count(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_an_expired_root_a_leaf_stays_until_its_end_and_the_issuer_goes_on_trying() {
    let data = tempfile::tempdir().expect("a directory");
    let authority = Authority::open_or_create(data.path(), Purpose::Mesh).expect("created");
    let end = SystemTime::from(authority.not_after());
    let clock = Clock::starting_at(end - Duration::from_secs(20));
    let mut running = Running::start(&data, &clock, wanted(Duration::from_secs(60), &[("shop/cart", "cart")]));
    let mut last = running.next().await;
    while !last.certificates.is_empty() {
        let issuance = last.certificates.get(&workload("shop/cart")).expect("issued");
        assert!(issuance.not_after <= end && issuance.not_after > clock.now());
        last = running.next().await;
    }
    assert!(clock.now() >= end);
    assert!(!running.task.is_finished());
    running.stop().await;
}

#[test]
fn the_pause_doubles_up_to_a_minute() {
    let mut now = SystemTime::UNIX_EPOCH;
    let mut last = None;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let retry = Retry::after(last, now);
        assert!(retry.at >= now + retry.pause / 2 && retry.at <= now + retry.pause);
        // Woken early, the moment stays.
        assert_eq!(Retry::after(Some(retry), now).at, retry.at);
        pauses.push(retry.pause.as_secs());
        now = retry.at;
        last = Some(retry);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_key() {
    let data = tempfile::tempdir().expect("a directory");
    let mut running = Running::start(&data, &clock(), wanted(TTL, &[("shop/cart", "cart")]));
    let issued = running.next().await;
    running.stop().await;
    let file = fs::read(data.path().join("ca/leaves/shop.cart.json")).expect("a file");
    let leaf: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    let key = leaf["key"].as_str().and_then(|key| key.lines().nth(1)).expect("a line of the key").to_owned();
    assert!(String::from_utf8_lossy(&issued.certificates[&workload("shop/cart")].secret.value()).contains(&key));
    assert!(!format!("{issued:?}").contains(&key));
}
