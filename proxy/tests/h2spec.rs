//! h2spec, the conformance test of HTTP/2 servers (RFC 9113, RFC 7541), against the listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is test code"
)]

mod common;

use std::process::Output;
use std::time::Duration;

use common::{Rig, app};
use tokio::process::Command;

/// Most cases take milliseconds; some wait for what must not come.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs all cases, those of the letter of the standard too.
async fn h2spec(port: u16) -> Output {
    let program = std::env::var_os("DORMOUSE_H2SPEC")
        .expect("DORMOUSE_H2SPEC must name the program h2spec, as `cargo xtask test` has it");
    let mut command = Command::new(program);
    command.args(["--strict", "--timeout", "5", "--host", "127.0.0.1", "--port"]);
    command.arg(port.to_string()).kill_on_drop(true);
    let running = tokio::time::timeout(LIMIT, command.output());
    running
        .await
        .expect("h2spec should have come to its end")
        .expect("h2spec should have started")
}

/// What fails, and is right: the listener speaks HTTP/1.1 as well. What does not begin as HTTP/2 is a bad request of that, and
/// is told so before the connection is closed, where h2spec expects to be told nothing.
const NOT_OURS: [&str; 1] = ["2: Sends invalid connection preface"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_speaks_http2_as_the_standards_have_it() {
    let app = app::serve(|_| async { app::text("Some bytes, for windows to run out of.") }).await;
    let rig = Rig::serving(app.address);
    let output = h2spec(rig.address().port()).await;
    let report = String::from_utf8_lossy(&output.stdout);
    let (_, end) = report
        .split_once("Failures:")
        .unwrap_or_else(|| panic!("{report}\n{}", String::from_utf8_lossy(&output.stderr)));
    let failed: Vec<_> = end
        .lines()
        .filter_map(|line| line.trim().strip_prefix("× "))
        .collect();
    assert_eq!(failed, NOT_OURS, "{end}");
    assert!(
        end.contains("146 tests, 145 passed, 0 skipped, 1 failed"),
        "{end}"
    );
}
