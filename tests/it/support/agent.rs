//! The real binary as an agent.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{get, mepulse};

/// A configuration file in the making.
pub(crate) struct Config {
    server: String,
    agent: String,
    listen: String,
    status: String,
    services: String,
}

impl Config {
    /// For the application `app`, with a state file and a status server.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            server: format!("url = \"{url}\"\ntimeout_ms = 2000\n"),
            // To stop takes as long as the disk does.
            agent: "app_instance_id = \"app\"\nstate_file = \"state.json\"\n\
                    stop_timeout_ms = 30000\n"
                .to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            status: String::new(),
            services: String::new(),
        }
    }

    pub(crate) fn server(mut self, line: &str) -> Self {
        self.server += &format!("{line}\n");
        self
    }

    pub(crate) fn timeout_ms(mut self, ms: u64) -> Self {
        self.server = self
            .server
            .replace("timeout_ms = 2000", &format!("timeout_ms = {ms}"));
        self
    }

    pub(crate) fn stop_timeout_ms(mut self, ms: u64) -> Self {
        self.agent = self.agent.replace(
            "stop_timeout_ms = 30000",
            &format!("stop_timeout_ms = {ms}"),
        );
        self
    }

    pub(crate) fn agent(mut self, line: &str) -> Self {
        self.agent += &format!("{line}\n");
        self
    }

    /// Where the status server listens.
    pub(crate) fn listen(mut self, place: &str) -> Self {
        place.clone_into(&mut self.listen);
        self
    }

    pub(crate) fn status(mut self, line: &str) -> Self {
        self.status += &format!("{line}\n");
        self
    }

    /// A service that offers this interval; `more` are lines of its table, and tables of its own.
    pub(crate) fn service(mut self, name: &str, interval_s: u32, more: &str) -> Self {
        self.services += &format!(
            "[[services]]\nname = \"{name}\"\ninterval_s = {interval_s}\ntransport = {{ id = \"t\", \
             name = \"REST\", type = \"REST_HTTP\", protocol = \"HTTP\", version = \"2.0\", endpoint = \
             {{ uris = [\"http://10.0.0.1/\"] }}, security = {{}} }}\n{more}\n"
        );
        self
    }

    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("agent.toml");
        let text = format!(
            "[server]\n{}[agent]\n{}[status]\nlisten = \"{}\"\n{}{}",
            self.server, self.agent, self.listen, self.status, self.services
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    status: String,
    log: PathBuf,
}

impl Agent {
    /// Starts in a directory, on the configuration.
    pub(crate) fn start(dir: &Path, config: &Config) -> Self {
        Self::start_with(dir, config, &[])
    }

    /// With more in its environment.
    pub(crate) fn start_with(dir: &Path, config: &Config, variables: &[(&str, &str)]) -> Self {
        let path = config.write(dir);
        let mut command = mepulse();
        command.args(["agent", "--config"]).arg(path);
        command.envs(variables.iter().copied());
        Self::spawn(dir, command)
    }

    /// Whatever the command says.
    pub(crate) fn spawn(dir: &Path, mut command: Command) -> Self {
        let log = dir.join("agent.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = command
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let status = line.strip_prefix("mepulse agent status on ");
        let status = status.unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&log).unwrap()));
        Self {
            status: status.trim_end().to_owned(),
            child,
            log,
        }
    }

    /// Where its status server is.
    pub(crate) fn place(&self) -> &str {
        &self.status
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// `/status`
    pub(crate) fn status(&self) -> Value {
        get(&format!("{}/status", self.status)).json()
    }

    /// One service of `/status`.
    pub(crate) fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().unwrap();
        let service = services.iter().find(|service| service["name"] == name);
        service.cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn state(&self, name: &str) -> String {
        self.service(name)["state"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    }

    /// The service's id, once it beats.
    pub(crate) fn beating(&self, name: &str) -> String {
        until("it beats", || {
            let service = self.service(name);
            (service["state"] == "beating" && service["lastBeatMsAgo"].is_u64())
                .then(|| service["id"].as_str().unwrap().to_owned())
        })
    }

    /// The value of a counter.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let text = get(&format!("{}/metrics", self.status)).text();
        let name = format!("mepulse_agent_{name}_total ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// `kill -9`
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; its exit code and log.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = ended(&mut self.child);
        (status.code(), self.log())
    }

    /// SIGTERM; it must end in good order.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let (code, log) = self.ended();
        assert_eq!(code, Some(0), "{log}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// Waits until a process ends, for a minute at most.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    until("the process ends", || child.try_wait().unwrap())
}

/// The exit code as a shell has it.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// Asks again and again until there is an answer, for a minute at most.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: it never happens");
}

/// The same, for what is true or not.
pub(crate) fn until_true(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || ask().then_some(()));
}
