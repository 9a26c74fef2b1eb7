//! The group `control plane`: whether it serves, and to whom.
//!
//! Owns: those checks. May use: the facts. Never: looks at one proxy.

use super::{Facts, Found, Rule};

pub(super) const CHECKS: [Rule; 3] = [
    ("control plane", "ready", ready),
    ("control plane", "admin address", admin_address),
    ("control plane", "plaintext address", plaintext_address),
];

fn ready(facts: &Facts) -> Found {
    match &facts.status.ready {
        Ok(()) => Found::Well("every source has synced; proxies are served".to_owned()),
        Err(reason) => Found::bad(
            format!("proxies are not served: {reason}"),
            "wait until it is read; if it never is, the log of `chancery serve` says why",
        ),
    }
}

fn admin_address(facts: &Facts) -> Found {
    let address = facts.setting.admin;
    match address.ip().is_loopback() {
        true => Found::Well(format!("{address} is for this machine alone")),
        false => Found::doubtful(
            format!("{address} can be reached from other machines, and asks for no credential"),
            format!("serve with --admin-address 127.0.0.1:{}", address.port()),
        ),
    }
}

fn plaintext_address(facts: &Facts) -> Found {
    let Some(address) = facts.setting.plaintext else {
        return Found::Well("none is open: every proxy shows a certificate".to_owned());
    };
    let count = facts.proxies.iter().filter(|proxy| !proxy.proven).count();
    let on_it = match count {
        0 => "no proxy is on it".to_owned(),
        1 => "1 proxy on it is known by its node id alone".to_owned(),
        many => format!("{many} proxies on it are known by their node ids alone"),
    };
    let exposed = match address.ip().is_loopback() {
        true => "",
        false => "; OTHER MACHINES REACH IT (--insecure): whoever does reads the configuration of any node",
    };
    Found::doubtful(
        format!("{address} is open without TLS: {on_it}{exposed}"),
        "give each proxy a credential with `chancery bootstrap`, then serve without --xds-plaintext-address",
    )
}
