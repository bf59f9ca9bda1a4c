//! House rules as an ordinary test.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Which rooms a room may import; an absent name is a decision.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("clock", &["domain"]),
    ("config", &["domain", "store"]),
    ("metrics", &["domain"]),
    ("wire", &["domain"]),
    ("tls", &["files"]),
    ("files", &[]),
    ("auth", &["domain", "files", "config"]),
    ("store", &["domain", "clock"]),
    ("registry", &["domain", "clock", "store", "metrics"]),
    (
        "notify",
        &["domain", "clock", "wire", "tls", "registry", "metrics"],
    ),
    (
        "agent",
        &["domain", "clock", "wire", "tls", "files", "auth"],
    ),
    ("bench", &["clock", "wire", "tls"]),
    (
        "http",
        &[
            "domain", "wire", "registry", "notify", "config", "metrics", "tls", "auth",
        ],
    ),
];

#[test]
fn rooms_import_only_inner_rooms() {
    for (room, allowed) in MAY_IMPORT {
        let dir = root().join("src").join(room);
        let file = root().join("src").join(format!("{room}.rs"));
        let files = if dir.is_dir() {
            sources(&dir)
        } else {
            vec![file]
        };
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            // What a module's tests import is no arrow between rooms.
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = text.split("#[cfg(test)]").next().unwrap();
            for (_, rest) in text
                .match_indices("crate::")
                .map(|(at, found)| text.split_at(at + found.len()))
            {
                let target: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let fine =
                    target == room || allowed.contains(&target.as_str()) || target.is_empty();
                assert!(
                    fine,
                    "{} imports {target}; {room} may import {allowed:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_engine_is_named_only_in_the_store_and_the_migrations() {
    for path in sources(&root().join("src")) {
        let inside = path.starts_with(root().join("src/store"));
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        assert!(
            inside || !code.clone().any(|line| line.contains("sled::")),
            "{}",
            path.display()
        );
        assert!(
            inside || !code.clone().any(|line| line.contains("bincode::")),
            "{}",
            path.display()
        );
    }
}

#[test]
fn status_codes_are_chosen_in_one_file() {
    for path in sources(&root().join("src/http")) {
        let text = fs::read_to_string(&path).unwrap();
        let chooses = text.contains("StatusCode::");
        assert!(
            !chooses || path.starts_with(root().join("src/http/answer")),
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_migration_is_listed() {
    let list = fs::read_to_string(root().join("migrations/mod.rs")).unwrap();
    for path in sources(&root().join("migrations")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(
            name == "mod" || list.contains(&format!("{name}::STEP")),
            "{name}"
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "XX".to_owned() + "X",
    ];
    let mut files = sources(&root().join("src"));
    files.extend(sources(&root().join("tests")));
    files.extend(sources(&root().join("migrations")));
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !marks.iter().any(|mark| text.contains(mark.as_str())),
            "{}",
            path.display()
        );
    }
}
