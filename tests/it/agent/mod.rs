//! `mepulse agent` as a process, beside the real server and beside other ones.

mod care;
mod dialects;
mod edgegallery;
mod outages;
mod run;
mod setup;
mod tokens;

use serde_json::Value;

use crate::support::{Server, get, mepulse, put};

/// Intervals of two seconds, so that silence shows soon.
const QUICK: [&str; 2] = ["--set", "liveness.min_interval_s=1"];

/// What the platform shows of the application's services.
fn services(server: &Server) -> Vec<Value> {
    let answer = get(&format!("{}/services", server.app("app")));
    match answer.status {
        404 => Vec::new(),
        _ => answer.json().as_array().unwrap().clone(),
    }
}

/// The state that the platform shows for a service, by its name; empty if there is none.
fn state(server: &Server, name: &str) -> String {
    let services = services(server);
    let service = services.iter().find(|service| service["serName"] == name);
    let state = service.and_then(|service| service["state"].as_str());
    state.unwrap_or_default().to_owned()
}

/// Everything that has happened to a service, without what is still to come.
fn story(data_dir: &std::path::Path, id: &str) -> String {
    let output = mepulse()
        .args(["admin", "why", id, "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (past, _) = text.split_once("as things stand").unwrap();
    past.to_owned()
}

/// Somebody else sets the service INACTIVE.
fn deactivate(server: &Server) -> String {
    let mut info = services(server).remove(0);
    let url = format!(
        "{}{}",
        server.url,
        info["_links"]["self"]["href"].as_str().unwrap()
    );
    info["state"] = "INACTIVE".into();
    assert_eq!(put(&url, &info).status, 200);
    url
}
