//! The client against the real server, and against nobody.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admin::{self, AdminState, Exposure, Status, view};
use crate::report::Report;
use crate::telemetry::Telemetry;
use crate::telemetry::loads::Loads;

fn ask(address: SocketAddr) -> Ask {
    Ask { server: Server { admin_address: address.to_string() }, output: Output::Table }
}

async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = admin::bind(any, Exposure::Loopback).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

#[tokio::test]
async fn the_api_answers_the_commands() {
    let (listener, address) = listener().await;
    let (_sender, status) = watch::channel(Arc::new(Status::starting("no rules yet")));
    let state = AdminState {
        report: Report::default(),
        telemetry: Telemetry::default(),
        loads: Loads::default(),
        setting: admin::Setting::of_tests(),
        status,
    };
    let stop = CancellationToken::new();
    let (served, ()) = tokio::join!(admin::serve(listener, state, stop.clone()), async {
        let empty = view::Edges { edges: Vec::new(), mtls_share: None, requests: 0 };
        assert_eq!(ask(address).server.get::<view::Edges>("/api/v1/edges").await.expect("an answer"), empty);
        let refused = ask(address).server.get::<view::Health>("/readyz").await.expect_err("not ready");
        assert_eq!(refused.to_string(), format!("{address} refused: no rules yet"));
        for (yes, code) in [(true, ExitCode::SUCCESS), (false, ExitCode::from(1))] {
            let shown = ask(address).show("/api/v1/edges", |_: &view::Edges, _| String::new(), |_| yes).await;
            assert_eq!(shown.expect("shown"), code);
        }
        stop.cancel();
    });
    served.expect("it ends well");
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_what_to_do_and_exit_code_2() {
    let (listener, address) = listener().await;
    drop(listener);
    let refused = ask(address).server.get::<view::Edges>("/api/v1/edges").await.expect_err("nobody listens");
    assert_eq!(
        format!("{refused:#}"),
        format!(
            "nobody answers at {address}: start the control plane with `chancery serve`, \
             or say where it is with --admin-address or CHANCERY_ADMIN_ADDRESS"
        )
    );
    let shown = ask(address).show("/api/v1/edges", |_: &view::Edges, _| String::new(), |_| true).await;
    assert_eq!(shown.expect("an exit code"), ExitCode::from(2));
}

#[test]
fn no_format_lets_words_of_others_steer_the_terminal() {
    let answer = view::Health { status: "a\x1b[2J\u{9b}31m\u{7f}\u{202e}\r\nb: é".to_owned() };
    for text in [json(&answer), yaml(&answer)] {
        let text = text.expect("written");
        assert!(text.lines().all(|line| escaped(line) == line), "{text:?}");
        assert!(text.contains('é'), "{text:?}");
        assert_eq!(serde_saphyr::from_str::<view::Health>(&text).expect("still YAML"), answer, "{text:?}");
    }
    assert_eq!(serde_json::from_str::<view::Health>(&json(&answer).expect("written")).expect("still JSON"), answer);
    let plain = view::Health { status: "ok".to_owned() };
    assert_eq!(yaml(&plain).expect("written"), "status: ok\n");
}
