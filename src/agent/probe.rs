//! Is the application well? One task per probe asks again and again, and tells the agent.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tokio::net::{TcpStream, lookup_host};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::Http;
use super::config::{ExecProbe, FileProbe, HttpProbe, Probe};
use crate::clock;

/// So much of an answer is looked at for `body_contains`.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A file may be so much younger than now: clocks of file servers differ.
const SKEW_MAX_S: u64 = 60;

/// Whose probe has said what; a no comes with its reason.
pub(super) type News = (String, Result<(), String>);

/// Asks for ever; `name` says whose probe this is.
pub(super) async fn run(probe: Probe, http: Http, name: String, news: mpsc::Sender<News>) {
    let mut timer = tokio::time::interval(Duration::from_secs(probe.interval_s));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asker = Asker::new(probe, http);
    loop {
        timer.tick().await;
        let said = asker.ask().await;
        if news.send((name.clone(), said)).await.is_err() {
            return;
        }
    }
}

/// Asks one probe.
struct Asker {
    probe: Probe,
    http: Http,
    /// What the operating system has not come back from: a file system or a name server that hangs.
    /// It holds a thread, so there is never more than one.
    looking: Option<JoinHandle<Result<(), String>>>,
    resolving: Option<JoinHandle<std::io::Result<Vec<SocketAddr>>>>,
}

impl Asker {
    fn new(probe: Probe, http: Http) -> Self {
        Self {
            probe,
            http,
            looking: None,
            resolving: None,
        }
    }

    /// Asks once, within the probe's timeout.
    async fn ask(&mut self) -> Result<(), String> {
        let limit = Duration::from_millis(self.probe.timeout_ms);
        let asked = tokio::time::timeout(limit, self.asked(limit)).await;
        asked.unwrap_or_else(|_| {
            Err(format!(
                "the probe took longer than {} ms",
                limit.as_millis()
            ))
        })
    }

    async fn asked(&mut self, limit: Duration) -> Result<(), String> {
        if let Some(probe) = &self.probe.http {
            get(probe, &self.http, limit).await
        } else if let Some(probe) = &self.probe.tcp {
            let address = probe.address.clone();
            let failed = |error| format!("connecting to {address} failed: {error}");
            let name = address.clone();
            let resolve =
                || tokio::spawn(async move { lookup_host(name).await.map(Vec::from_iter) });
            let found = one_at_a_time(&mut self.resolving, resolve).await?;
            let found = found.map_err(failed)?;
            let connected = TcpStream::connect(found.as_slice()).await;
            connected.map(drop).map_err(failed)
        } else if let Some(probe) = &self.probe.exec {
            run_command(probe).await
        } else if let Some(probe) = &self.probe.file {
            let probe = probe.clone();
            let look = || tokio::task::spawn_blocking(move || look(&probe));
            one_at_a_time(&mut self.looking, look).await?
        } else {
            Ok(())
        }
    }
}

/// Waits for a task that cannot be given up; while the last one has not come back there is no new one.
async fn one_at_a_time<T>(
    place: &mut Option<JoinHandle<T>>,
    begin: impl FnOnce() -> JoinHandle<T>,
) -> Result<T, String> {
    if place.as_ref().is_some_and(|last| !last.is_finished()) {
        return Err("the last look has not come back".to_owned());
    }
    let task = place.insert(begin());
    let done = task.await.map_err(|error| error.to_string());
    *place = None;
    done
}

async fn get(probe: &HttpProbe, http: &Http, limit: Duration) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(&probe.url)
        .body(Full::new(Bytes::new()))
        .map_err(|error| format!("{} cannot be called: {error}", probe.url))?;
    let answer = http.send(request, limit, BODY_BYTES_MAX).await;
    let answer = answer.map_err(|lost| format!("GET {}: {lost}", probe.url))?;
    let expected = match probe.status.as_slice() {
        [] => answer.is_success(),
        statuses => statuses.contains(&answer.status),
    };
    if !expected {
        return Err(format!("GET {} was answered {}", probe.url, answer.status));
    }
    let text = probe.body_contains.as_bytes();
    let contains = text.is_empty() || answer.body.windows(text.len()).any(|part| part == text);
    match contains {
        true => Ok(()),
        false => Err(format!(
            "the answer to GET {} does not contain {:?}",
            probe.url, probe.body_contains
        )),
    }
}

/// A command that is given up is killed with all that it has started.
async fn run_command(probe: &ExecProbe) -> Result<(), String> {
    let Some((program, arguments)) = probe.command.split_first() else {
        return Ok(());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} could not be started: {error}"))?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let ended = child.wait().await;
    let status = ended.map_err(|error| format!("waiting for {program} failed: {error}"))?;
    drop(group);
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program} ended with {status}")),
    }
}

/// A process group that goes when this does.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(rustix::process::Pid::from_raw) {
            // Mostly there is nobody left.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

fn look(probe: &FileProbe) -> Result<(), String> {
    let path = probe.path.display();
    let modified = std::fs::metadata(&probe.path)
        .and_then(|found| found.modified())
        .map_err(|error| format!("{path}: {error}"))?;
    let since_epoch = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now_s = clock::wall_now().as_ms() / 1000;
    let modified_s = since_epoch.as_secs();
    if modified_s > now_s + SKEW_MAX_S {
        // The clock was put back; whoever writes now writes with the new time.
        return Err(format!("{path} was last written at a time to come"));
    }
    let age_s = now_s.saturating_sub(modified_s);
    match age_s <= probe.max_age_s {
        true => Ok(()),
        false => Err(format!("{path} was last written {age_s} s ago")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn http() -> Http {
        let server = toml::from_str("url = 'http://127.0.0.1:1'").unwrap();
        Http::new(&server, Duration::from_secs(5), 0).unwrap()
    }

    async fn said(probe: &str) -> Result<(), String> {
        let probe: Probe = toml::from_str(probe).unwrap();
        Asker::new(probe, http()).ask().await
    }

    async fn check(probe: &str, part: &str) {
        let reason = said(probe).await.unwrap_err();
        assert!(reason.contains(part), "{probe}: {reason}");
    }

    #[tokio::test]
    async fn a_command_says_yes_with_exit_code_0_and_is_killed_when_it_is_late() {
        assert_eq!(said("exec = { command = ['true'] }").await, Ok(()));
        check("exec = { command = ['false'] }", "exit status: 1").await;
        check("exec = { command = ['/nowhere'] }", "could not be started").await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mark = file.path().display();
        let late =
            format!("timeout_ms = 100\nexec = {{ command = ['sh', '-c', 'sleep 3; rm {mark}'] }}");
        check(&late, "longer than 100 ms").await;
        // Its shell is gone, and so is what the shell has started.
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert!(file.path().exists());
    }

    #[tokio::test]
    async fn a_file_says_yes_while_it_is_young() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let probe = format!("file = {{ path = '{path}', max_age_s = 60 }}");
        assert_eq!(said(&probe).await, Ok(()));
        let past = clock::wall_now().as_ms() / 1000 - 120;
        let past = std::time::UNIX_EPOCH + Duration::from_secs(past);
        file.as_file().set_modified(past).unwrap();
        check(&probe, "last written 12").await;
        let future =
            std::time::UNIX_EPOCH + Duration::from_secs(clock::wall_now().as_ms() / 1000 + 3600);
        file.as_file().set_modified(future).unwrap();
        check(&probe, "a time to come").await;
        check("file = { path = '/nowhere', max_age_s = 1 }", "/nowhere").await;
    }

    #[tokio::test]
    async fn what_hangs_is_not_begun_again() {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(Some(held));
        let mut place = None;
        let begin = || {
            let held = held.lock().unwrap().take().unwrap();
            tokio::task::spawn_blocking(move || held.recv().is_ok())
        };
        let first = one_at_a_time(&mut place, begin);
        let first = tokio::time::timeout(Duration::from_millis(10), first).await;
        assert!(first.is_err(), "it hangs");
        let again = one_at_a_time(&mut place, || unreachable!("one is still there")).await;
        assert!(again.is_err());
        let_go.send(()).unwrap();
        while !place.as_ref().unwrap().is_finished() {
            tokio::task::yield_now().await;
        }
        let next = one_at_a_time(&mut place, || tokio::spawn(async { true })).await;
        assert_eq!(next, Ok(true));
    }

    #[tokio::test]
    async fn a_port_says_yes_while_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = format!("tcp = {{ address = '{address}' }}");
        assert_eq!(said(&probe).await, Ok(()));
        drop(listener);
        check(&probe, "connecting").await;
    }

    #[tokio::test]
    async fn an_answer_says_yes_with_the_right_status_and_text() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/health", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 207 X\r\ncontent-length: 7\r\n\r\nall up\n";
                let _ = stream.write_all(answer).await;
            }
        });
        assert_eq!(said(&format!("http = {{ url = '{url}' }}")).await, Ok(()));
        let with = |more: &str| format!("http = {{ url = '{url}', {more} }}");
        assert_eq!(said(&with("body_contains = 'all up'")).await, Ok(()));
        check(&with("body_contains = 'down'"), "does not contain").await;
        assert_eq!(said(&with("status = [200, 207]")).await, Ok(()));
        check(&with("status = [200]"), "was answered 207").await;
        check(
            "http = { url = 'http://127.0.0.1:1/' }",
            "cannot be reached",
        )
        .await;
    }
}
