//! Every parameter, right and wrong.

use super::*;
use crate::domain::service::Locality;

fn ids(ids: &[&str]) -> Selection<String> {
    Selection::Ids(ids.iter().map(|&id| id.to_owned()).collect())
}

fn names(names: &[&str]) -> Selection<String> {
    Selection::Names(names.iter().map(|&name| name.to_owned()).collect())
}

fn category(id: &str) -> Selection<String> {
    Selection::Categories(vec![id.to_owned()])
}

#[test]
fn one_kind_of_name_selects() {
    let bare = "ABABABABABABABABABABABABABABABAB";
    let hyphenated = "abababab-abab-abab-abab-abababababab";
    for (raw, selection) in [
        ("", Selection::All),
        ("&&", Selection::All),
        ("is_local=true", Selection::All),
        ("is_local=false&", Selection::All),
        ("ser_instance_id=x", ids(&["x"])),
        (
            &format!("ser_instance_id={bare}&ser_instance_id=%7Bx"),
            ids(&[hyphenated, "{x"]),
        ),
        (
            &format!("ser_instance_id={hyphenated}&is_local=true&ser_instance_id={hyphenated}"),
            ids(&[hyphenated, hyphenated]),
        ),
        ("ser_name=a,b&&ser_name=c=d", names(&["a,b", "c=d"])),
        ("ser%5Fname=a+b%2Bc%20d", names(&["a b+c d"])),
        ("ser_name=%C3%bc%26%25", names(&["ü&%"])),
        ("ser_category_id=/c?", category("/c?")),
    ] {
        let query = Query {
            selection: selection.clone(),
            ..Query::ALL
        };
        assert_eq!(parse_services(raw, Dialect::Standard), Ok(query), "{raw}");
        assert_eq!(parse_watch(raw), Ok(selection), "{raw}");
    }
}

#[test]
fn services_are_asked_for_by_more() {
    let all = Query::ALL;
    let scope = |scope| Query {
        scope_of_locality: Some(scope),
        ..Query::ALL
    };
    let only = |only| Query {
        consumed_local_only: Some(only),
        ..Query::ALL
    };
    for (raw, query) in [
        ("", all),
        ("scope_of_locality=MEC_SYSTEM", scope(Locality::MecSystem)),
        ("scope_of_locality=MEC_HOST", scope(Locality::MecHost)),
        ("scope_of_locality=NFVI_POP", scope(Locality::NfviPop)),
        ("scope_of_locality=ZONE", scope(Locality::Zone)),
        ("scope_of_locality=ZONE_GROUP", scope(Locality::ZoneGroup)),
        ("scope_of_locality=NFVI_NODE", scope(Locality::NfviNode)),
        ("consumed_local_only=true", only(true)),
        ("consumed_local_only=false", only(false)),
        (
            "is_local=true&consumed_local_only=false&ser_name=n&scope_of_locality=ZONE",
            Query {
                selection: names(&["n"]),
                scope_of_locality: Some(Locality::Zone),
                consumed_local_only: Some(false),
                ..Query::ALL
            },
        ),
    ] {
        assert_eq!(parse_services(raw, Dialect::Standard), Ok(query), "{raw}");
    }
}

#[test]
fn edgegallery_asks_by_its_own_names() {
    let theirs = |raw| parse_services(raw, Dialect::EdgeGallery);
    let query = Query {
        selection: ids(&["x"]),
        version: Some("v1".to_owned()),
        ..Query::ALL
    };
    assert_eq!(theirs("instance_id=x&version=v1"), Ok(query.clone()));
    assert_eq!(theirs("ser_instance_id=x&version=v1"), Ok(query));
    for raw in ["instance_id=x", "version=v1"] {
        let refused = parse_services(raw, Dialect::Standard).unwrap_err();
        assert!(refused.to_string().contains("not supported"), "{refused}");
    }
    assert!(theirs("instance_id=x&ser_name=y").is_err());
}

/// The refusal of a query that both a list and a watch refuse in the same words.
fn refusal(raw: &str) -> String {
    let error = parse_services(raw, Dialect::Standard).unwrap_err();
    assert_eq!(parse_watch(raw), Err(error.clone()), "{raw}");
    error.to_string()
}

#[test]
fn what_is_wrong_is_named() {
    for (raw, says) in [
        (
            "ser_instance_id=x&ser_name=n",
            "ser_instance_id and ser_name exclude each other",
        ),
        (
            "ser_category_id=c&ser_instance_id=x",
            "ser_instance_id and ser_category_id exclude each other",
        ),
        (
            "ser_name=n&ser_category_id=c",
            "ser_name and ser_category_id exclude each other",
        ),
        (
            "ser_category_id=c&ser_category_id=c",
            "ser_category_id is given 2 times; once was expected",
        ),
        (
            "is_local=true&is_local=true&is_local=true",
            "is_local is given 3 times; once was expected",
        ),
        ("ser_instance_id=", "ser_instance_id must not be empty"),
        ("ser_instance_id", "ser_instance_id must not be empty"),
        ("ser_name=a&ser_name=", "ser_name must not be empty"),
        ("ser_category_id=", "ser_category_id must not be empty"),
        ("is_local=", "is_local must not be empty"),
        ("is_local", "is_local must not be empty"),
        (
            "is_local=TRUE",
            "is_local is \"TRUE\"; \"true\" or \"false\" was expected",
        ),
        (
            "is_local=1",
            "is_local is \"1\"; \"true\" or \"false\" was expected",
        ),
        (
            "is_local=true+",
            "is_local is \"true \"; \"true\" or \"false\" was expected",
        ),
        (
            "ser_name=%",
            "ser_name is not valid percent-encoded UTF-8: \"%\"",
        ),
        (
            "ser_name=a&ser_name=%4",
            "ser_name is not valid percent-encoded UTF-8: \"%4\"",
        ),
        (
            "ser_instance_id=%+41",
            "ser_instance_id is not valid percent-encoded UTF-8: \"%+41\"",
        ),
        (
            "ser_category_id=%FF",
            "ser_category_id is not valid percent-encoded UTF-8: \"%FF\"",
        ),
        (
            "is_local=%G1",
            "is_local is not valid percent-encoded UTF-8: \"%G1\"",
        ),
        (
            "%zz=1",
            "the name of a query parameter is not valid percent-encoded UTF-8: \"%zz\"",
        ),
    ] {
        assert_eq!(refusal(raw), says, "{raw}");
    }
}

#[test]
fn what_is_wrong_in_a_list_is_named() {
    for (raw, says) in [
        (
            "scope_of_locality=EARTH",
            "scope_of_locality is \"EARTH\"; \"MEC_SYSTEM\" or \"MEC_HOST\" or \"NFVI_POP\" or \
             \"ZONE\" or \"ZONE_GROUP\" or \"NFVI_NODE\" was expected",
        ),
        ("scope_of_locality=", "scope_of_locality must not be empty"),
        (
            "scope_of_locality=ZONE&scope_of_locality=ZONE",
            "scope_of_locality is given 2 times; once was expected",
        ),
        (
            "scope_of_locality=%%",
            "scope_of_locality is not valid percent-encoded UTF-8: \"%%\"",
        ),
        (
            "consumed_local_only=yes",
            "consumed_local_only is \"yes\"; \"true\" or \"false\" was expected",
        ),
        (
            "consumed_local_only",
            "consumed_local_only must not be empty",
        ),
        (
            "consumed_local_only=true&consumed_local_only=false",
            "consumed_local_only is given 2 times; once was expected",
        ),
        (
            "consumed_local_only=%e",
            "consumed_local_only is not valid percent-encoded UTF-8: \"%e\"",
        ),
    ] {
        let error = parse_services(raw, Dialect::Standard).unwrap_err();
        assert_eq!(error.to_string(), says, "{raw}");
    }
}

#[test]
fn unknown_parameters_are_refused() {
    let services = "ser_instance_id, ser_name, ser_category_id, scope_of_locality, \
                    consumed_local_only, is_local";
    let watch = "ser_instance_id, ser_name, ser_category_id, is_local";
    let long = "x".repeat(41);
    let cut = format!("{}\"…", &format!("\"{long}")[..41]);
    for (raw, name) in [
        ("x=1", "\"x\""),
        ("ser_names=a", "\"ser_names\""),
        ("SER_NAME=a", "\"SER_NAME\""),
        ("ser_name[]=a", "\"ser_name[]\""),
        ("ser_name+=a", "\"ser_name \""),
        ("=a", "\"\""),
        ("ser_name=a&%22=1", "\"\\\"\""),
        (&long, &cut),
    ] {
        let says = |known: &str| {
            Err(Malformed::new(format!(
                "query parameter {name} is not supported here; {known} are"
            )))
        };
        assert_eq!(
            parse_services(raw, Dialect::Standard),
            says(services),
            "{raw}"
        );
        assert_eq!(parse_watch(raw).map(|_| Query::ALL), says(watch), "{raw}");
    }
    for name in ["scope_of_locality", "consumed_local_only"] {
        let error = parse_watch(&format!("{name}=true")).unwrap_err();
        let says = format!("query parameter \"{name}\" is not supported here; {watch} are");
        assert_eq!(error.to_string(), says);
    }
}
