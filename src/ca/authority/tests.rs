//! The files of an authority: created once, never replaced, refused when they are not right.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use x509_parser::extensions::ParsedExtension;

use std::io;

use super::*;

/// Every file below `dir`, with its mode.
fn contents(dir: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let path = entry.expect("listed").path();
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, (mode, fs::read(&path).unwrap_or_default()))
    };
    fs::read_dir(dir).expect("a directory").map(entry).collect()
}

fn refused(data_dir: &Path) -> String {
    Authority::open_or_create(data_dir, Purpose::Mesh).expect_err("refused").to_string()
}

#[test]
fn a_root_says_what_a_root_must() {
    let data = tempfile::tempdir().expect("a directory");
    let authority = Authority::open_or_create(data.path(), Purpose::Mesh).expect("created");
    let (_, root) = X509Certificate::from_der(authority.certificate()).expect("parses");

    assert_eq!(root.subject().to_string(), "O=chancery, CN=chancery mesh authority");
    assert_eq!(root.issuer(), root.subject());
    root.verify_signature(None).expect("signed by itself");
    let life = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
    assert_eq!(life, 3650 * 86400 + 300);
    assert!((60..=130).contains(&root.serial.bits()), "{} bits", root.serial.bits());
    let mut seen = BTreeMap::new();
    for extension in root.extensions() {
        let (name, value) = match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(basic) => {
                ("basic", format!("{} {:?}", basic.ca, basic.path_len_constraint))
            }
            ParsedExtension::KeyUsage(usage) => ("usage", usage.to_string()),
            ParsedExtension::SubjectKeyIdentifier(id) => ("subject key", format!("{}", id.0.len())),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                ("authority key", format!("{}", id.key_identifier.as_ref().map_or(0, |id| id.0.len())))
            }
            other => ("other", format!("{other:?}")),
        };
        seen.insert(name, (extension.critical, value));
    }
    let expected = [
        ("authority key", (false, "20".to_owned())),
        ("basic", (true, "true Some(0)".to_owned())),
        ("subject key", (false, "20".to_owned())),
        ("usage", (true, "Key Cert Sign, CRL Sign".to_owned())),
    ];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn the_two_authorities_are_apart_and_stay_as_they_are() {
    let data = tempfile::tempdir().expect("a directory");
    let first = Authorities::open_or_create(data.path()).expect("created");
    let before = contents(&data.path().join("ca"));
    let again = Authorities::open_or_create(data.path()).expect("opened");

    assert_ne!(first.mesh.certificate(), first.control.certificate());
    assert_eq!(again.mesh.certificate(), first.mesh.certificate());
    assert_eq!(again.control.certificate(), first.control.certificate());
    assert_eq!(contents(&data.path().join("ca")), before);
    let modes: BTreeMap<_, _> = before.iter().map(|(name, (mode, _))| (name.as_str(), *mode)).collect();
    let private = |name: &str| modes.get(name).copied();
    assert_eq!([private("mesh.key"), private("control.key")], [Some(0o600); 2]);
    assert_eq!(fs::metadata(data.path().join("ca")).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(
        modes.keys().copied().collect::<Vec<_>>(),
        ["control.key", "control.pem", "lock", "mesh.key", "mesh.pem"]
    );
}

#[test]
fn damage_is_refused_and_nothing_is_replaced() {
    type Damage = fn(&Path);
    let table: [(Damage, &str); 9] = [
        (
            |ca| fs::remove_file(ca.join("mesh.key")).unwrap(),
            "CA/mesh.key: missing while CA/mesh.pem exists; restore it from a backup, or move CA/mesh.pem away to \
             start a new root (every certificate of the old one then stops being trusted)",
        ),
        (
            |ca| fs::remove_file(ca.join("mesh.pem")).unwrap(),
            "CA/mesh.pem: missing while CA/mesh.key exists; restore it from a backup, or move CA/mesh.key away to \
             start a new root (every certificate of the old one then stops being trusted)",
        ),
        (
            |ca| fs::set_permissions(ca.join("mesh.key"), fs::Permissions::from_mode(0o640)).unwrap(),
            "CA/mesh.key: mode 0640 lets others read the private key; run: chmod 600 CA/mesh.key",
        ),
        (
            |ca| fs::write(ca.join("mesh.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap(),
            "CA/mesh.key: must hold one PEM private key for ECDSA P-256 with SHA-256; restore it from a backup",
        ),
        (
            |ca| fs::write(ca.join("mesh.pem"), "").unwrap(),
            "CA/mesh.pem: must hold one PEM certificate of an authority; restore it from a backup",
        ),
        (
            |ca| fs::write(ca.join("mesh.pem"), b"\xff\xfe").unwrap(),
            "CA/mesh.pem: cannot be read; it must be a file that this user may read",
        ),
        (
            |ca| assert!(fs::copy(ca.join("control.key"), ca.join("mesh.key")).is_ok()),
            "CA/mesh.key: not the key of CA/mesh.pem; restore the two from the same backup",
        ),
        (
            |ca| assert!(fs::copy(ca.join("control.pem"), ca.join("mesh.pem")).is_ok()),
            "CA/mesh.key: not the key of CA/mesh.pem; restore the two from the same backup",
        ),
        (
            |ca| {
                fs::remove_file(ca.join("mesh.key")).unwrap();
                fs::create_dir(ca.join("mesh.key")).unwrap();
                fs::set_permissions(ca.join("mesh.key"), fs::Permissions::from_mode(0o700)).unwrap();
            },
            "CA/mesh.key: cannot be read; it must be a file that this user may read",
        ),
    ];
    for (damage, expected) in table {
        let data = tempfile::tempdir().expect("a directory");
        let key = {
            Authorities::open_or_create(data.path()).expect("created");
            fs::read_to_string(data.path().join("ca/mesh.key")).expect("a key")
        };
        let ca = data.path().join("ca");
        damage(&ca);
        let before = contents(&ca);

        let error = Authority::open_or_create(data.path(), Purpose::Mesh).expect_err("refused");
        assert_eq!(error.to_string(), expected.replace("CA/", &format!("{}/", ca.display())));
        assert_eq!(contents(&ca), before);
        let secret = key.lines().nth(1).expect("a line of the key");
        assert!(!format!("{error:?}").contains(secret));
    }
}

#[test]
fn a_leaf_is_no_root() {
    let data = tempfile::tempdir().expect("a directory");
    let authority = Authority::open_or_create(data.path(), Purpose::Mesh).expect("created");
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an id");
    let profile = crate::ca::Profile::Workload(&identity);
    let leaf = crate::ca::leaf::issue(&authority, profile, BACKDATE, SystemTime::now()).expect("issued");
    fs::write(data.path().join("ca/mesh.pem"), leaf.chain_pem).expect("written");
    fs::write(data.path().join("ca/mesh.key"), leaf.key_pem).expect("written");
    let path = data.path().join("ca/mesh.pem").display().to_string();
    assert_eq!(
        refused(data.path()),
        format!("{path}: must hold one PEM certificate of an authority; restore it from a backup")
    );
}

#[test]
fn an_interrupted_creation_is_finished() {
    let data = tempfile::tempdir().expect("a directory");
    let created = Authority::open_or_create(data.path(), Purpose::Mesh).expect("created");
    let file = |name: &str| data.path().join("ca").join(name);

    // Killed between the two renames: the pair is known, and put in place.
    fs::rename(file("mesh.pem"), file("mesh.pem.new")).expect("renamed");
    let finished = Authority::open_or_create(data.path(), Purpose::Mesh).expect("finished");
    assert_eq!(finished.certificate(), created.certificate());

    // Killed before the first: nobody can have seen the pair, and another is made.
    fs::rename(file("mesh.pem"), file("mesh.pem.new")).expect("renamed");
    fs::rename(file("mesh.key"), file("mesh.key.new")).expect("renamed");
    let another = Authority::open_or_create(data.path(), Purpose::Mesh).expect("created");
    assert_ne!(another.certificate(), created.certificate());
    let left: Vec<_> = contents(&data.path().join("ca")).into_keys().collect();
    assert_eq!(left, ["lock", "mesh.key", "mesh.pem"]);
}

/// What `logged` writes as log lines, without their times.
fn log_of(logged: impl FnOnce()) -> String {
    use std::sync::{Arc, Mutex};
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&lines);
    let make = move || Lines(Arc::clone(&writer));
    let log = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false).with_writer(make).finish();
    tracing::subscriber::with_default(log, logged);
    String::from_utf8(lines.lock().expect("no panic").clone()).expect("text")
}

#[test]
fn what_is_created_is_logged_once() {
    let data = tempfile::tempdir().expect("a directory");
    let new = Authorities::open_or_create(data.path()).expect("created");
    let line = |purpose: &str, authority: &Authority| {
        let hash = crate::ca::leaf::hex(digest::digest(&digest::SHA256, authority.certificate()).as_ref());
        let pairs = format!("{hash:0>64}").to_uppercase().into_bytes();
        let pairs: Vec<_> = pairs.chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
        let file = data.path().join(format!("ca/{purpose}.pem"));
        let end = authority.not_after().format(&Rfc3339).expect("a time");
        format!(
            " INFO certificate authority created purpose=\"{purpose}\" file={} sha256=\"{}\" not_after=\"{end}\"\n",
            file.display(),
            pairs.join(":")
        )
    };
    let expected = line("mesh", &new.mesh) + &line("control", &new.control);
    assert_eq!(log_of(|| new.log_created()), expected);

    let opened = Authorities::open_or_create(data.path()).expect("opened");
    assert_eq!(log_of(|| opened.log_created()), "");

    // What was interrupted between the two is finished; only the second is new.
    fs::remove_file(data.path().join("ca/control.pem")).expect("there");
    fs::remove_file(data.path().join("ca/control.key")).expect("there");
    let finished = Authorities::open_or_create(data.path()).expect("created");
    assert_eq!(log_of(|| finished.log_created()), line("control", &finished.control));
}

#[test]
fn a_lost_authority_is_refused_while_its_state_remains() {
    let anew = "missing, but the data directory was in use; restore its ca folder from a backup, or remove";
    let end = "to begin anew (every certificate of the old root then stops being trusted)";
    let (mesh, control) = ("DIR/ca/mesh.pem and DIR/ca/mesh.key", "DIR/ca/control.pem and DIR/ca/control.key");
    let others = |lost: &str| format!("DIR/ca/{lost}.pem, DIR/ca/{lost}.key");
    let table: [(&[&str], &[&str], String); 6] = [
        (&["instances.json"], &["mesh", "control"], format!("{mesh}: {anew} DIR/instances.json {end}")),
        (&["last-good.jsonl"], &["mesh"], format!("{mesh}: {anew} DIR/last-good.jsonl, {} {end}", others("control"))),
        (&["identity/revoked.json"], &["control"], {
            format!("{control}: {anew} DIR/identity/revoked.json, {} {end}", others("mesh"))
        }),
        (&["ca/leaves/shop.cart.json"], &["mesh", "control"], format!("{mesh}: {anew} DIR/ca/leaves {end}")),
        (&["instances.json", "ca/leaves/shop.cart.json"], &["control"], {
            format!("{control}: {anew} DIR/instances.json, DIR/ca/leaves, {} {end}", others("mesh"))
        }),
        (&["serving", "identity/lock", "other"], &["mesh", "control"], String::new()),
    ];
    for (state, lost, expected) in table {
        let data = tempfile::tempdir().expect("a directory");
        let first = Authorities::open_or_create(data.path()).expect("created");
        fs::create_dir_all(data.path().join("ca/leaves")).expect("created");
        fs::create_dir_all(data.path().join("identity")).expect("created");
        for file in state {
            fs::write(data.path().join(file), "{}").expect("written");
        }
        for name in lost {
            fs::remove_file(data.path().join(format!("ca/{name}.pem"))).expect("there");
            fs::remove_file(data.path().join(format!("ca/{name}.key"))).expect("there");
        }
        let before = contents(&data.path().join("ca"));
        match Authorities::open_or_create(data.path()) {
            Err(error) => {
                assert_eq!(error.to_string(), expected.replace("DIR", &data.path().display().to_string()));
                assert_eq!(contents(&data.path().join("ca")), before);
            }
            Ok(anew) => {
                assert_eq!(expected, "", "created beside {state:?}");
                assert_ne!(anew.mesh.certificate(), first.mesh.certificate());
            }
        }
    }
}

#[test]
fn those_who_create_at_once_agree() {
    let data = tempfile::tempdir().expect("a directory");
    let start = std::sync::Barrier::new(8);
    let roots: Vec<_> = std::thread::scope(|scope| {
        let create = || {
            start.wait();
            Authorities::open_or_create(data.path()).expect("created or opened")
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let first = roots.first().expect("eight");
    for other in &roots {
        assert_eq!(other.mesh.certificate(), first.mesh.certificate());
        assert_eq!(other.control.certificate(), first.control.certificate());
    }
}

#[test]
fn debug_shows_no_key() {
    let data = tempfile::tempdir().expect("a directory");
    let authority = Authority::open_or_create(data.path(), Purpose::Control).expect("created");
    assert_eq!(format!("{authority:?}"), format!("control authority, valid until {}", authority.not_after()));
}
