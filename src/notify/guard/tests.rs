//! Every range at its edges, every notation of an address.

use super::*;

fn guard(allow: &[&str]) -> Guard {
    let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().unwrap()).collect();
    Guard::new(&allow)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn kind(refused: Result<(), Forbidden>) -> Option<Kind> {
    match refused {
        Ok(()) => None,
        Err(Forbidden::Address { kind, .. } | Forbidden::Carried { kind, .. }) => Some(kind),
        Err(Forbidden::Localhost) => Some(Kind::Loopback),
    }
}

const ADDRESSES: [(&str, Option<Kind>); 68] = [
    ("0.0.0.0", Some(Kind::Unspecified)),
    ("0.255.255.255", Some(Kind::Unspecified)),
    ("1.0.0.0", None),
    ("9.255.255.255", None),
    ("10.0.0.1", None),
    ("100.64.0.1", None),
    ("100.100.100.199", None),
    ("100.100.100.200", Some(Kind::Metadata)),
    ("100.100.100.201", None),
    ("126.255.255.255", None),
    ("127.0.0.0", Some(Kind::Loopback)),
    ("127.0.0.1", Some(Kind::Loopback)),
    ("127.255.255.255", Some(Kind::Loopback)),
    ("128.0.0.0", None),
    ("168.63.129.16", Some(Kind::Metadata)),
    ("169.253.255.255", None),
    ("169.254.0.0", Some(Kind::LinkLocal)),
    ("169.254.169.253", Some(Kind::LinkLocal)),
    ("169.254.169.254", Some(Kind::Metadata)),
    ("169.254.255.255", Some(Kind::LinkLocal)),
    ("169.255.0.0", None),
    ("172.16.0.1", None),
    ("192.0.0.191", None),
    ("192.0.0.192", Some(Kind::Metadata)),
    ("192.168.1.1", None),
    ("203.0.113.7", None),
    ("223.255.255.255", None),
    ("224.0.0.0", Some(Kind::Multicast)),
    ("239.255.255.255", Some(Kind::Multicast)),
    ("240.0.0.0", Some(Kind::Reserved)),
    ("255.255.255.254", Some(Kind::Reserved)),
    ("255.255.255.255", Some(Kind::Broadcast)),
    ("::", Some(Kind::Unspecified)),
    ("::1", Some(Kind::Loopback)),
    ("::2", Some(Kind::Unspecified)), // carries 0.0.0.2
    ("2001:db8::1", None),
    ("2606:4700::1111", None),
    ("fc00::1", None),
    ("fd12:3456::1", None),
    ("fd00:ec2::253", None),
    ("fd00:ec2::254", Some(Kind::Metadata)),
    ("fd20:ce::254", Some(Kind::Metadata)),
    ("fd00:42::42", Some(Kind::Metadata)),
    ("fe7f:ffff::1", None),
    ("fe80::1", Some(Kind::LinkLocal)),
    ("febf:ffff::1", Some(Kind::LinkLocal)),
    ("fec0::1", None),
    ("feff:ffff::1", None),
    ("ff02::1", Some(Kind::Multicast)),
    ("ffff::1", Some(Kind::Multicast)),
    // Carried.
    ("::ffff:127.0.0.1", Some(Kind::Loopback)),
    ("::ffff:0.0.0.0", Some(Kind::Unspecified)),
    ("::ffff:169.254.169.254", Some(Kind::Metadata)),
    ("::ffff:10.0.0.1", None),
    ("::127.0.0.1", Some(Kind::Loopback)),
    ("::10.0.0.1", None),
    ("::ffff:0:127.0.0.1", Some(Kind::Loopback)),
    ("64:ff9b::7f00:1", Some(Kind::Loopback)),
    ("64:ff9b::a9fe:a9fe", Some(Kind::Metadata)),
    ("64:ff9b::a00:1", None),
    ("64:ff9b:0:0:0:1:7f00:1", None),
    ("64:ff9b:1::7f00:1", Some(Kind::Loopback)),
    ("64:ff9b:1:2:3:4:e000:1", Some(Kind::Multicast)),
    ("64:ff9b:2::7f00:1", None),
    ("2002:7f00:1::1", Some(Kind::Loopback)),
    ("2002:ffff:ffff::", Some(Kind::Broadcast)),
    ("2002:a00:1::1", None),
    ("2003:7f00:1::1", None),
];

#[test]
fn an_address_is_judged_by_its_kind() {
    for (text, expected) in ADDRESSES {
        assert_eq!(kind(guard(&[]).check(address(text))), expected, "{text}");
    }
}

#[test]
fn everything_is_admitted_by_its_own_network() {
    for (text, _) in ADDRESSES {
        let itself = IpNet::from(address(text));
        assert_eq!(Guard::new(&[itself]).check(address(text)), Ok(()), "{text}");
        let all = guard(&["0.0.0.0/0", "::/0"]).check(address(text));
        assert_eq!(all, Ok(()), "{text}");
    }
}

#[test]
fn an_allowed_network_admits_itself_and_what_carries_it() {
    for (allow, text, expected) in [
        ("127.0.0.1/32", "127.0.0.1", true),
        ("127.0.0.1/32", "127.0.0.2", false),
        ("127.0.0.1/32", "::1", false),
        ("127.0.0.0/8", "127.9.9.9", true),
        ("127.0.0.0/8", "::ffff:127.9.9.9", true),
        ("127.0.0.0/8", "::127.9.9.9", true),
        ("127.0.0.0/8", "64:ff9b::7f00:1", true),
        ("127.0.0.0/8", "2002:7f00:1::", true),
        ("127.0.0.0/8", "169.254.169.254", false),
        ("::1/128", "::1", true),
        ("::1/128", "127.0.0.1", false),
        ("::1/128", "::ffff:127.0.0.1", false),
        ("0.0.0.0/8", "::1", false),
        ("0.0.0.0/8", "::", false),
        ("0.0.0.0/0", "::ffff:127.0.0.1", true),
        ("0.0.0.0/0", "fe80::1", false),
        // All of IPv6 is not IPv4 in disguise; a network of disguises is.
        ("::/0", "fe80::1", true),
        ("::/0", "::ffff:127.0.0.1", false),
        ("::/0", "64:ff9b::7f00:1", false),
        ("::ffff:0:0/96", "::ffff:127.0.0.1", true),
        ("::ffff:127.0.0.0/104", "::ffff:127.0.0.1", true),
        ("::ffff:127.0.0.0/104", "::ffff:169.254.169.254", false),
        ("64:ff9b::/96", "64:ff9b::7f00:1", true),
        ("2002:7f00::/24", "2002:7f00:1::", true),
        ("fe80::/10", "fe80::1", true),
        ("169.254.0.0/16", "169.254.169.254", true),
    ] {
        let admitted = guard(&[allow]).check(address(text)).is_ok();
        assert_eq!(admitted, expected, "{allow} and {text}");
    }
}

#[test]
fn a_callback_is_seen_through_in_every_notation() {
    for (callback, expected) in [
        ("http://127.0.0.1/", Some(Kind::Loopback)),
        ("https://127.0.0.1:8443/x", Some(Kind::Loopback)),
        ("http://127.1/", Some(Kind::Loopback)),
        ("http://127.0.0.1./", Some(Kind::Loopback)),
        ("http://2130706433/", Some(Kind::Loopback)),
        ("http://0x7f000001/", Some(Kind::Loopback)),
        ("http://0x7f.1/", Some(Kind::Loopback)),
        ("http://0X7F.0x0.0.1/", Some(Kind::Loopback)),
        ("http://0177.0.0.01/", Some(Kind::Loopback)),
        ("http://017700000001/", Some(Kind::Loopback)),
        ("http://%31%32%37.0.0.1/", Some(Kind::Loopback)),
        (
            "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
            Some(Kind::Loopback),
        ),
        (
            "http://\u{2460}\u{2461}\u{2466}\u{3002}1/",
            Some(Kind::Loopback),
        ),
        ("http://0/", Some(Kind::Unspecified)),
        ("http://0x/", Some(Kind::Unspecified)),
        ("http://0.0.0.0/", Some(Kind::Unspecified)),
        ("http://2852039166/", Some(Kind::Metadata)),
        ("http://169.254.43518/", Some(Kind::Metadata)),
        ("http:\\\\169.254.169.254\\latest", Some(Kind::Metadata)),
        ("http://4294967295/", Some(Kind::Broadcast)),
        ("http://[::1]/", Some(Kind::Loopback)),
        ("http://[0:0:0:0:0:0:0:1]:80/", Some(Kind::Loopback)),
        ("http://[::]/", Some(Kind::Unspecified)),
        ("http://[::ffff:127.0.0.1]/", Some(Kind::Loopback)),
        ("http://[::FFFF:7F00:1]/", Some(Kind::Loopback)),
        ("http://[0:0:0:0:0:ffff:127.0.0.1]/", Some(Kind::Loopback)),
        ("http://[::127.0.0.1]/", Some(Kind::Loopback)),
        ("http://[64:ff9b::7f00:1]/", Some(Kind::Loopback)),
        ("http://[64:ff9b::127.0.0.1]/", Some(Kind::Loopback)),
        ("http://[2002:7f00:1::]/", Some(Kind::Loopback)),
        ("http://[fe80::1]/", Some(Kind::LinkLocal)),
        ("http://[fd00:ec2::254]/latest/", Some(Kind::Metadata)),
        ("http://[ff02::1]/", Some(Kind::Multicast)),
        ("http://localhost/", Some(Kind::Loopback)),
        ("http://LOCALHOST:9/", Some(Kind::Loopback)),
        ("http://localhost./", Some(Kind::Loopback)),
        ("http://a.localhost/", Some(Kind::Loopback)),
        ("http://a.b.LocalHost./", Some(Kind::Loopback)),
        ("http://%6cocalhost/", Some(Kind::Loopback)),
        ("http://\u{24db}ocalhost/", Some(Kind::Loopback)),
        ("http://10.1.2.3/", None),
        ("http://[fd12::1]/", None),
        ("http://localhost.example/", None),
        ("http://notlocalhost/", None),
        ("http://mec.example:8080/notify?x=127.0.0.1#localhost", None),
    ] {
        let Ok(parsed) = CallbackUri::parse(callback) else {
            // Refused for its form already.
            assert!(expected.is_some(), "{callback}");
            continue;
        };
        let found = kind(guard(&[]).check_host(&parsed));
        assert_eq!(found, expected, "{callback}");
    }
}

#[test]
fn localhost_is_admitted_by_either_loopback() {
    for (allow, expected) in [
        ("127.0.0.0/8", true),
        ("127.0.0.1/32", true),
        ("::1/128", true),
        ("127.0.0.2/32", false),
        ("169.254.0.0/16", false),
    ] {
        let localhost = CallbackUri::parse("http://localhost/").unwrap();
        let admitted = guard(&[allow]).check_host(&localhost).is_ok();
        assert_eq!(admitted, expected, "{allow}");
    }
}

#[test]
fn a_refusal_says_what_it_is_and_what_to_do() {
    for (text, sentence) in [
        (
            "127.0.0.1",
            "127.0.0.1 is a loopback address, which is called only if notify.allow lists it",
        ),
        (
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::a9fe:a9fe carries 169.254.169.254, the metadata service of a cloud, \
             which is called only if notify.allow lists it",
        ),
    ] {
        let refused = guard(&[]).check(address(text)).unwrap_err();
        assert_eq!(refused.to_string(), sentence);
    }
    assert_eq!(
        Forbidden::Localhost.to_string(),
        "localhost is a loopback address, which is called only if notify.allow lists \
         127.0.0.1 or ::1"
    );
}
