//! The real binary as a server, and a plain client.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod clients;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod jwt;
pub(crate) mod load;
pub(crate) mod mount;
pub(crate) mod pki;
pub(crate) mod random;
pub(crate) mod stub;
pub(crate) mod truth;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// The binary under test.
pub(crate) fn mepulse() -> Command {
    alone(Command::new(env!("CARGO_BIN_EXE_mepulse")))
}

/// The binary under test, as the last argument of another command.
pub(crate) fn mepulse_under(mut command: Command) -> Command {
    command.arg(env!("CARGO_BIN_EXE_mepulse"));
    alone(command)
}

fn alone(mut command: Command) -> Command {
    // Nothing of the developer's own environment or directory may leak in.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEPULSE_") {
            command.env_remove(name);
        }
    }
    command
        .env_remove("RUST_LOG")
        .current_dir(std::env::temp_dir());
    command
}

/// A running server on a free port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// `http://127.0.0.1:port`
    pub(crate) url: String,
    log: PathBuf,
}

impl Server {
    /// Starts on a data directory; `args` come behind `serve`.
    pub(crate) fn start(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_with_log(data_dir, &data_dir.with_extension("log"), args)
    }

    /// The same, with a log elsewhere than beside the data directory.
    pub(crate) fn start_with_log(data_dir: &Path, log: &Path, args: &[&str]) -> Self {
        Self::try_start(mepulse(), data_dir, log, args).unwrap_or_else(|code| {
            panic!(
                "no start-up line but exit code {code:?}: {}",
                std::fs::read_to_string(log).unwrap()
            )
        })
    }

    /// Starts `command`, which is the binary or ends with it; its exit code if it does not start.
    pub(crate) fn try_start(
        mut command: Command,
        data_dir: &Path,
        log: &Path,
        args: &[&str],
    ) -> Result<Self, Option<i32>> {
        let mut options = File::options();
        let stderr = options.create(true).append(true).open(log).unwrap();
        // A free port, unless the test has chosen one.
        let listen: &[&str] = match args.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        let mut child = command
            .arg("serve")
            .args(listen)
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(url) = line.strip_prefix("mepulse listening on ") else {
            assert!(line.is_empty(), "no start-up line but {line:?}");
            return Err(child.wait().unwrap().code());
        };
        Ok(Self {
            url: url.trim_end().to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The service management root.
    pub(crate) fn root(&self) -> String {
        format!("{}/mec_service_mgmt/v1", self.url)
    }

    /// `…/applications/{app}`
    pub(crate) fn app(&self, app: &str) -> String {
        format!("{}/applications/{app}", self.root())
    }

    /// Everything logged so far, by earlier servers on the same directory too.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// `kill -9`
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself, for a minute at most; its exit code.
    pub(crate) fn wait(self) -> Option<i32> {
        self.ended().0
    }

    /// The same, with its log.
    fn ended(mut self) -> (Option<i32>, String) {
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end: {}", self.log());
    }

    /// SIGTERM; it must end in good order.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        self.ends_well();
    }

    /// Told to stop, it must end in good order.
    pub(crate) fn ends_well(self) {
        let (code, log) = self.ended();
        assert_eq!(code, Some(0), "{log}");
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = get(&format!("{}/metrics", self.url)).text();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    /// A connection of its own, for raw bytes.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream
    }

    /// Registers a service and gives back its representation.
    pub(crate) fn register(&self, app: &str, body: &Value) -> Value {
        let answer = post(&format!("{}/services", self.app(app)), body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A data directory in a temporary one; keep the first value alive.
pub(crate) fn data_dir() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    (temporary, path)
}

/// The least a `ServiceInfo` must have, plus an offer of heartbeats.
pub(crate) fn service(name: &str, liveness_interval: Option<u32>) -> Value {
    json!({
        "serName": name, "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
        "livenessInterval": liveness_interval,
        "transportInfo": {
            "id": "t", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
            "endpoint": {"uris": ["http://10.0.0.1/"]}, "security": {}
        }
    })
}

/// A service whose registration is so many bytes longer.
pub(crate) fn long_service(name: &str, liveness_interval: Option<u32>, bytes: usize) -> Value {
    let mut service = service(name, liveness_interval);
    service["version"] = "x".repeat(bytes).into();
    service
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Checks that this is a problem document of that status; returns its detail.
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], status, "{body}");
        assert!(
            body["title"].is_string() && body["instance"].is_string(),
            "{body}"
        );
        body["detail"].as_str().unwrap().to_owned()
    }
}

/// One request; every status is an answer, not an error.
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_send(method, url, headers, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// One request; an error is a broken connection.
pub(crate) fn try_send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    thread_local! {
        static AGENT: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
    }
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    AGENT.with(|agent| {
        let mut answer = if body.is_empty() && !matches!(method, "POST" | "PUT" | "PATCH") {
            agent.run(request.body(()).unwrap())?
        } else {
            agent.run(request.body(body).unwrap())?
        };
        let headers: Vec<(String, String)> = answer
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    value.to_str().unwrap_or_default().to_owned(),
                )
            })
            .collect();
        // A stream has no end that could be waited for.
        let streams = headers
            .iter()
            .any(|(name, value)| name == "content-type" && value == "text/event-stream");
        let body = match streams {
            true => Vec::new(),
            false => answer
                .body_mut()
                .with_config()
                .limit(1 << 30)
                .read_to_vec()?,
        };
        Ok(Answer {
            status: answer.status().as_u16(),
            headers,
            body,
        })
    })
}

pub(crate) fn get(url: &str) -> Answer {
    send("GET", url, &[], b"")
}

pub(crate) fn post(url: &str, body: &Value) -> Answer {
    send("POST", url, &[], body.to_string().as_bytes())
}

pub(crate) fn put(url: &str, body: &Value) -> Answer {
    send("PUT", url, &[], body.to_string().as_bytes())
}

pub(crate) fn patch(url: &str, body: &Value) -> Answer {
    send("PATCH", url, &[], body.to_string().as_bytes())
}

/// A plain heartbeat.
pub(crate) fn beat(url: &str) -> Answer {
    patch(url, &json!({"state": "ACTIVE"}))
}

/// The service's liveness URI out of its representation.
pub(crate) fn liveness_of(server: &Server, info: &Value) -> String {
    format!(
        "{}{}",
        server.url,
        info["_links"]["liveness"]["href"].as_str().unwrap()
    )
}

/// Every file below a directory with its content, but for what belongs to a process.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if path.is_file() && !path.ends_with("lock") {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The service's id out of its representation.
pub(crate) fn id_of(info: &Value) -> &str {
    info["serInstanceId"].as_str().unwrap()
}

/// The service's own URI out of its representation.
pub(crate) fn self_of(server: &Server, info: &Value) -> String {
    format!(
        "{}{}",
        server.url,
        info["_links"]["self"]["href"].as_str().unwrap()
    )
}

/// Opens the engine behind the server's back.
pub(crate) fn open_engine(dir: &Path) -> sled::Db {
    once_unlocked(|| sled::open(dir.join("sled"))).unwrap()
}

/// Opens what a process has just closed. One that another test is just starting may hold the locks
/// for a moment, between its fork and its exec.
pub(crate) fn once_unlocked<T, E: std::fmt::Display>(
    open: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..500 {
        match open() {
            Err(error) if is_of_locks(&error.to_string()) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
    open()
}

fn is_of_locks(error: &str) -> bool {
    error.contains("could not acquire lock") || error.contains("is in use by another process")
}

/// Starts a server on whatever is in the directory, and its start-up line; empty if it ended first.
pub(crate) fn start_on(dir: &Path) -> (Child, String) {
    let mut child = mepulse()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line)
}

/// A long linger, and no pulse that would end it: what is sent waits in the queue.
pub(crate) const LINGERING: [&str; 8] = [
    "--set",
    "store.commit_linger_ms=1000",
    "--set",
    "truth.tick_ms=60000",
    "--set",
    "truth.stall_ms=120000",
    "--set",
    "liveness.grace_min_ms=300000",
];

/// The shortest intervals: silence shows within two seconds or so.
pub(crate) const BRIEF: [&str; 10] = [
    "--set",
    "liveness.min_interval_s=1",
    "--set",
    "liveness.grace_min_ms=200",
    "--set",
    "liveness.grace_percent=0",
    "--set",
    "truth.tick_ms=20",
    "--set",
    "truth.stall_ms=100",
];
