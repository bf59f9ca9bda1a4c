//! What follows from what, without a server.

use serde_json::json;

use super::*;
use crate::domain::Wall;

const NOW: Steady = Steady::from_ms(1_000_000);

fn moment(at: Steady) -> Moment {
    Moment {
        steady: at,
        wall: Wall::from_ns(0),
    }
}

fn service(more: &str) -> Service {
    let text = format!("name = 'cam'\ninterval_s = 10\ntransport_id = 't'\n{more}");
    Service::new(toml::from_str(&text).unwrap())
}

fn probed(when_unhealthy: &str) -> Service {
    service(&format!(
        "when_unhealthy = '{when_unhealthy}'\n[probe]\ntcp = {{ address = 'x:1' }}\n\
         unhealthy_after = 2\nhealthy_after = 2\n"
    ))
}

fn info(state: &str) -> Info {
    Info::read(
        json!({"serInstanceId": "1", "serName": "cam", "state": state, "livenessInterval": 10,
        "_links": {"liveness": {"href": "/l"}}}),
    )
    .unwrap()
}

fn settled(state: &str) -> Settled {
    Settled {
        info: info(state),
        conflict: false,
        fresh: true,
        in_doubt: false,
        surplus: 0,
    }
}

const WAIT: OnConflict = OnConflict::Wait;

#[test]
fn a_service_without_a_probe_is_settled_at_once_and_then_beats() {
    let mut service = service("");
    assert!(service.settle_at(WAIT).is_some() && !service.beats());
    assert!(service.settle(WAIT).active);
    assert_eq!(service.settle_at(WAIT), None);
    service.settled(settled("ACTIVE"), NOW, 1000);
    assert!(service.beats() && service.settle_at(WAIT).is_none());
    assert!(service.is_due(NOW));
    service.said(Said::Heard(Some(20)), moment(NOW), NOW, 0);
    assert_eq!(service.interval_s(), 20);
    assert!(!service.is_due(NOW.plus_ms(5_000)) && service.is_due(NOW.plus_ms(6_100)));
}

#[test]
fn what_is_not_known_to_be_well_is_not_announced() {
    let mut service = probed("silence");
    assert_eq!(service.settle_at(WAIT), None);
    service.verdict.judge(Err("no".to_owned()));
    service.verdict.judge(Err("no".to_owned()));
    assert_eq!(service.settle_at(WAIT), None);
    service.verdict.judge(Ok(()));
    assert_eq!(service.verdict.health(), Health::Unhealthy);
    service.verdict.judge(Ok(()));
    assert!(service.settle_at(WAIT).is_some());
}

#[test]
fn an_unhealthy_service_keeps_quiet_or_is_inactive_as_configured() {
    for (when_unhealthy, settles) in [("silence", false), ("inactive", true)] {
        let mut service = probed(when_unhealthy);
        service.verdict.judge(Ok(()));
        service.settle(WAIT);
        service.settled(settled("ACTIVE"), NOW, 1000);
        assert!(service.beats());
        service.verdict.judge(Err("no".to_owned()));
        assert!(service.beats(), "one is not enough");
        service.verdict.judge(Err("no".to_owned()));
        assert!(!service.beats());
        assert_eq!(service.settle_at(WAIT).is_some(), settles);
        if settles {
            assert!(!service.settle(WAIT).active);
            service.settled(settled("INACTIVE"), NOW, 1000);
            assert_eq!(service.settle_at(WAIT), None);
            service.verdict.judge(Ok(()));
            service.verdict.judge(Ok(()));
            assert!(service.settle_at(WAIT).is_some() && service.settle(WAIT).active);
        }
    }
}

#[test]
fn a_service_that_is_gone_is_settled_again_at_once_and_then_more_and_more_slowly() {
    let mut service = service("");
    let mut waits = Vec::new();
    for _ in 0..4 {
        service.settle(WAIT);
        service.settled(settled("ACTIVE"), NOW, 1000);
        service.said(Said::Gone, moment(NOW), NOW, 0);
        waits.push(service.settle_at(WAIT).unwrap().ms_since(NOW));
    }
    assert_eq!(waits[0], 0);
    assert!(waits[1] > 0 && waits[3] > waits[1], "{waits:?}");
}

#[test]
fn a_conflict_is_looked_at_again_at_each_interval() {
    let mut service = service("");
    service.settle(WAIT);
    service.settled(settled("ACTIVE"), NOW, 1000);
    service.said(Said::Inactive, moment(NOW), NOW, 0);
    assert_eq!(service.settle_at(WAIT), Some(NOW));
    assert!(!service.settle(WAIT).insist);
    let found = Settled {
        conflict: true,
        ..settled("INACTIVE")
    };
    service.settled(found, NOW, 1000);
    assert!(!service.beats());
    assert_eq!(service.settle_at(WAIT), Some(NOW.plus_ms(10_000)));
    assert_eq!(service.settle_at(OnConflict::Stop), None);
    assert!(service.settle(OnConflict::Activate).insist);
}

#[test]
fn a_doubt_ends_with_a_beat_that_begins_when_nothing_can_be_under_way_any_more() {
    let mut service = service("");
    service.settle(WAIT);
    let doubtful = Settled {
        in_doubt: true,
        ..settled("ACTIVE")
    };
    service.settled(doubtful, NOW, 1000);
    service.said(Said::Heard(None), moment(NOW.plus_ms(999)), NOW, 0);
    assert_eq!(service.settle_at(WAIT), None);
    service.said(Said::Heard(None), moment(NOW.plus_ms(1000)), NOW, 0);
    assert!(service.settle_at(WAIT).is_some() && service.settle(WAIT).doubt_ends);
}

#[test]
fn a_change_that_did_not_get_through_is_tried_again() {
    let mut service = service("");
    service.settle(WAIT);
    service.settled(settled("ACTIVE"), NOW, 1000);
    assert_eq!(service.settle_at(WAIT), None);
    let mut config = service.config.clone();
    config.version = "2".to_owned();
    service.reconfigure(config, NOW);
    for _ in 0..3 {
        assert!(service.settle_at(WAIT).is_some());
        service.settle(WAIT);
        assert_eq!(service.settle_at(WAIT), None);
        service.unsettled("no answer".to_owned(), false, NOW, 0, 1000, 0);
    }
    service.settle(WAIT);
    service.settled(settled("ACTIVE"), NOW, 1000);
    assert_eq!(service.settle_at(WAIT), None);
}

#[test]
fn another_probe_does_not_silence_who_is_well() {
    let mut service = probed("silence");
    service.verdict.judge(Ok(()));
    let mut config = service.config.clone();
    if let Some(probe) = &mut config.probe {
        probe.unhealthy_after = 3;
    }
    service.reconfigure(config, NOW);
    assert_eq!(service.verdict.health(), Health::Healthy);
    for _ in 0..3 {
        assert_eq!(service.verdict.health(), Health::Healthy);
        service.verdict.judge(Err("no".to_owned()));
    }
    assert_eq!(service.verdict.health(), Health::Unhealthy);
}
