//! `mepulse admin`: what was asked, as a table or as JSON.

use serde::Serialize;

use super::app;
use super::delivery;
use super::human::{duration, relative, table};
use super::source::Source;
use super::story;
use super::{AdminArgs, AdminCommand, Failure};
use crate::clock::wall_now;
use crate::config::Config;
use crate::domain::ServiceId;
use crate::wire::report::{Counts, ServiceDetail, ServiceReport, Status};

pub(super) fn run(args: &AdminArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config.sources())?;
    // These are files beside the store, which need not even be there.
    match &args.command {
        AdminCommand::App { command } => return app::run(command, &config, args.json),
        AdminCommand::Token(token) => return app::token(token, &config, args.json),
        _ => {}
    }
    let source = Source::open(&config)?;
    let result = print(&source, args);
    source.close()?;
    result
}

fn print(source: &Source, args: &AdminArgs) -> Result<(), Failure> {
    match &args.command {
        AdminCommand::Services => {
            let services = source.services()?;
            if args.json {
                print_json(&services)
            } else {
                print_services(&services, source.now_ms()?)
            }
        }
        AdminCommand::Show { service } => {
            let detail = source.service(parse_id(service)?)?;
            if args.json {
                print_json(&detail)
            } else {
                print_service(&detail, source.now_ms()?)
            }
        }
        AdminCommand::Why { service } => {
            let story = source.story(parse_id(service)?)?;
            if args.json {
                print_json(&story)
            } else {
                print_text(&story::why(&story))
            }
        }
        AdminCommand::Forecast => {
            let mut forecasts = source.forecasts()?;
            forecasts.sort_by_key(|forecast| forecast.evidence.deadline_steady_ms);
            if args.json {
                print_json(&forecasts)
            } else {
                print_text(&story::forecast(&forecasts, source.now_ms()?))
            }
        }
        AdminCommand::Subscriptions => {
            let subscriptions = source.subscriptions()?;
            if args.json {
                print_json(&subscriptions)
            } else {
                print_text(&delivery::subscriptions(&subscriptions, source.now_ms()?))
            }
        }
        AdminCommand::DeadLetters => {
            let letters = source.dead_letters()?;
            if args.json {
                print_json(&letters)
            } else {
                print_text(&delivery::dead_letters(&letters))
            }
        }
        AdminCommand::Status => {
            let status = source.status()?;
            if args.json {
                print_json(&status)
            } else {
                print_status(&status)
            }
        }
        // Seen to before the store is opened.
        AdminCommand::App { .. } | AdminCommand::Token(_) => Ok(()),
    }
}

fn parse_id(text: &str) -> Result<ServiceId, Failure> {
    ServiceId::parse(text).ok_or_else(|| Failure {
        code: 2,
        message: format!("{text:?} is no service id: expected a UUID (serInstanceId)"),
    })
}

/// Prints to standard output; a reader that has gone away (`| head`) is no failure.
pub(super) fn print_text(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    print_text(&format!("{text}\n"))
}

fn print_services(services: &[ServiceReport], steady_now_ms: u64) -> Result<(), Failure> {
    let header = [
        "SERVICE",
        "APPLICATION",
        "NAME",
        "STATE",
        "INTERVAL",
        "LAST HEARTBEAT",
        "SILENT",
    ];
    let row = |service: &ServiceReport| {
        [
            service.ser_instance_id.clone(),
            service.app_instance_id.clone(),
            service.ser_name.clone(),
            service.state.clone(),
            service
                .liveness_interval
                .map_or("-".to_owned(), |secs| format!("{secs} s")),
            last_heartbeat(service),
            silent(service, steady_now_ms),
        ]
    };
    print_text(&table(Some(header), services.iter().map(row).collect()))
}

fn last_heartbeat(service: &ServiceReport) -> String {
    match (&service.time_stamp, service.beats) {
        (Some(_), Some(0)) => "none yet".to_owned(),
        (Some(at), _) => match chrono::DateTime::parse_from_rfc3339(at) {
            Ok(at) => {
                let at_ms = u64::try_from(at.timestamp_millis()).unwrap_or(0);
                relative(at_ms, wall_now().as_ms())
            }
            Err(_) => at.clone(),
        },
        (None, _) => "-".to_owned(),
    }
}

/// When it will count as silent, or since when it does.
fn silent(service: &ServiceReport, steady_now_ms: u64) -> String {
    match (service.deadline_steady_ms, service.suspended_steady_ms) {
        (Some(at), _) => relative(at, steady_now_ms),
        (None, Some(since)) => format!("for {}", duration(steady_now_ms.saturating_sub(since))),
        (None, None) => "-".to_owned(),
    }
}

/// Names and values, one a line.
#[derive(Default)]
struct Facts(Vec<[String; 2]>);

impl Facts {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push([name.to_owned(), value.to_string()]);
    }

    fn into_text(self) -> String {
        table(None, self.0)
    }
}

fn print_service(detail: &ServiceDetail, steady_now_ms: u64) -> Result<(), Failure> {
    let report = &detail.report;
    let mut facts = Facts::default();
    facts.add("service", &report.ser_instance_id);
    facts.add("application", &report.app_instance_id);
    facts.add("name", &report.ser_name);
    facts.add("state", &report.state);
    match report.liveness_interval {
        None => facts.add("heartbeat", "none agreed on"),
        Some(secs) => {
            facts.add("interval", format!("{secs} s"));
            facts.add("last heartbeat", last_heartbeat(report));
            facts.add("time stamp", report.time_stamp.as_deref().unwrap_or("-"));
            facts.add("heartbeats", report.beats.unwrap_or(0));
            facts.add("silent", silent(report, steady_now_ms));
        }
    }
    if let Some(timer) = &detail.timer {
        facts.add("timer since", relative(timer.base_steady_ms, steady_now_ms));
        facts.add("grace", duration(timer.grace_ms));
        let why = if timer.promised {
            "promised"
        } else {
            "its interval; nothing promised"
        };
        facts.add(
            "tries again within",
            format!("{} ({why})", duration(timer.retry_ms)),
        );
    }
    let info = serde_json::to_string_pretty(&detail.service_info).map_err(Failure::failed)?;
    print_text(&format!("{}\n{info}\n", facts.into_text()))
}

fn print_status(status: &Status) -> Result<(), Failure> {
    let mut facts = Facts::default();
    match &status.process {
        Some(process) => {
            facts.add("server", format!("running (pid {})", process.pid));
            facts.add("address", &process.address);
            facts.add("version", &process.version);
            facts.add("up for", duration(process.uptime_ms));
            facts.add("durability", &process.durability);
            let ready = match process.not_ready.as_slice() {
                [] => "yes".to_owned(),
                reasons => format!("no: {}", reasons.join("; ")),
            };
            facts.add("ready", ready);
        }
        None => {
            facts.add("server", "stopped (this is what the store says)");
            facts.add(
                "last watched",
                status.last_watched.as_deref().unwrap_or("never"),
            );
            let how = match status.clean_stop {
                Some(true) => "in good order",
                Some(false) => "not in good order (crash, kill or power cut)",
                None => "-",
            };
            facts.add("stopped", how);
        }
    }
    let Counts {
        apps,
        active,
        inactive,
        suspended,
    } = status.counts;
    facts.add("data directory", &status.data_dir);
    facts.add(
        "store",
        format!("{} (schema {})", status.store_id, status.schema),
    );
    facts.add("applications", apps);
    facts.add(
        "services",
        format!("{active} ACTIVE, {suspended} SUSPENDED, {inactive} INACTIVE"),
    );
    facts.add("blind spots kept", status.blind_spots);
    facts.add("undecodable rows", status.undecodable_rows);
    print_text(&facts.into_text())
}
