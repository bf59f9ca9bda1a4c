//! Golden bytes: what stands here was released and must decode for ever.

use proptest::prelude::*;

use super::*;

fn service() -> Service {
    Service {
        name: "cam".into(),
        category: Some(Category {
            href: "h".into(),
            id: "i".into(),
            name: "n".into(),
            version: "v".into(),
        }),
        version: "1.0".into(),
        serializer: "JSON".into(),
        transport: Transport {
            id: "t".into(),
            name: "REST".into(),
            description: None,
            kind: "REST_HTTP".into(),
            protocol: "HTTP".into(),
            version: "2".into(),
            endpoint: Endpoint::Addresses(vec![Address {
                host: "10.0.0.1".into(),
                port: 80,
            }]),
            security: JsonText::from_json("{}".into()),
            impl_specific_info: Some(JsonText::from_json("[1]".into())),
        },
        scope_of_locality: Locality::Zone,
        consumed_local_only: true,
        liveness_offer: Some(LivenessOffer::Seconds(10)),
    }
}

#[test]
fn golden_service() {
    let record = ServiceRecord::new(&service());
    let bytes = record.as_ref().iter().map(|byte| format!("{byte:02x}"));
    assert_eq!(bytes.collect::<String>(), GOLDEN_SERVICE);
    assert_eq!(record.service(), service());
    assert_eq!(record.words(), ("cam", Some("i")));
    let no_category = Service {
        category: None,
        ..service()
    };
    assert_eq!(ServiceRecord::new(&no_category).words(), ("cam", None));
}

#[test]
fn every_endpoint_and_offer_round_trips() {
    for endpoint in [
        Endpoint::Uris(vec!["http://a".into(), String::new()]),
        Endpoint::Fqdn(vec!["a.example".into()]),
        Endpoint::Alternative(JsonText::from_json("{\"x\":null}".into())),
    ] {
        for offer in [
            None,
            Some(LivenessOffer::PlatformChooses),
            Some(LivenessOffer::Seconds(1)),
        ] {
            let mut service = service();
            service.transport.endpoint = endpoint.clone();
            service.liveness_offer = offer;
            let record = ServiceRecord::new(&service);
            assert_eq!(record.service(), service);
            assert_eq!(record.liveness_offer(), offer);
            assert_eq!(ServiceRecord::from_row(record.as_ref()), Ok(record));
        }
    }
}

proptest! {
    /// What the fuzzer of the decoder would try first.
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, cut in 0usize..200, flip in 0usize..200) {
        let mut near_miss = encode(&service());
        let index = flip % near_miss.len();
        near_miss[index] ^= 1;
        near_miss.truncate(near_miss.len().saturating_sub(cut));
        for bytes in [bytes, near_miss] {
            let _ = ServiceRecord::from_row(&bytes);
            // The same behind a valid envelope: the payload itself is hostile.
            let mut sealed = vec![1];
            sealed.extend_from_slice(&bytes);
            sealed.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
            let _ = ServiceRecord::from_row(&sealed);
        }
    }
}

const GOLDEN_SERVICE: &str = "01030000000000000063616d0101000000000000006801000000000000006901000000000000006e0100000000000000760300000000000000312e3004000000000000004a534f4e010000000000000074040000000000000052455354000900000000000000524553545f48545450040000000000000048545450010000000000000032020000000100000000000000080000000000000031302e302e302e31500002000000000000007b7d0103000000000000005b315d0301010a00000079bbf418";
