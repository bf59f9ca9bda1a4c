//! The server against its own document, by somebody else's reading of it.

use std::path::Path;
use std::process::Command;

use crate::support::mount::skip;

#[test]
fn every_answer_is_as_the_document_says() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis.sh");
    let run = Command::new("bash")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_mepulse"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    if let Some((_, reason)) = said.split_once("SKIP: ") {
        skip("schemathesis", reason.trim_end());
    }
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
