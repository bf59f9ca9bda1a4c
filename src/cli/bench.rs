//! `mepulse bench`: measures a server, and what it stands on.

mod args;
mod baseline;
mod text;

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

pub(super) use self::args::BenchArgs;
use self::args::{BenchCommand, Measurement};
use super::Failure;
use crate::bench::report::Report;
use crate::bench::{self, BenchError, Stop};

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let code = match error {
            BenchError::Usage(_) => 2,
            _ => 1,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}

pub(super) fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    match args.command {
        BenchCommand::Baseline { listen } => baseline::baseline(listen).map(|()| ExitCode::SUCCESS),
        BenchCommand::Measure(what) => report(*what),
    }
}

/// Measures, and prints what came of it.
fn report(what: Measurement) -> Result<ExitCode, Failure> {
    let json = what.wants_json();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let report = runtime.block_on(async {
        let stop = interruption().map_err(Failure::failed)?;
        Ok::<_, Failure>(measure(what, stop).await?)
    })?;
    print(&report, json)?;
    if !report.failures.are_too_many() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::failed(format!(
        "{:.1} % of all requests FAILED ({}): these numbers say nothing",
        report.failures.share * 100.0,
        text::kinds(&report.failures),
    )))
}

async fn measure(what: Measurement, stop: Stop) -> Result<Report, BenchError> {
    match what {
        Measurement::Beats(args) => bench::load(&args.load.at.setup(stop), &args.plan()?).await,
        Measurement::Batch(args) => bench::load(&args.load.at.setup(stop), &args.plan()?).await,
        Measurement::Register(args) => bench::load(&args.at.setup(stop), &args.plan()?).await,
        Measurement::Mixed(args) => bench::load(&args.load.at.setup(stop), &args.plan()?).await,
        Measurement::Expire(args) => {
            let plan = args.plan()?;
            bench::expire(&args.setup(stop), &plan).await
        }
        Measurement::Recover(args) => bench::recover(&args.own.setup(stop), &args.plan()).await,
        Measurement::Ratio(args) => bench::ratio(&args.own.setup(stop), &args.plan()).await,
        Measurement::Size(args) => bench::size(&args.own.setup(stop), &args.plan()?).await,
    }
}

/// Hears SIGINT and SIGTERM. The first one ends the measurement and cleans up; a second one ends a
/// clean-up that hangs.
fn interruption() -> std::io::Result<Stop> {
    let (sender, stop) = Stop::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for last in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if last {
                eprintln!("mepulse: interrupted twice; what was registered may still be there");
                std::process::exit(1);
            }
            sender.send_replace(true);
        }
    });
    Ok(stop)
}

/// A reader that has gone away is no reason to fail.
fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let text = match json {
        true => serde_json::to_string_pretty(report).map_err(Failure::failed)? + "\n",
        false => text::render(report),
    };
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    Ok(())
}
