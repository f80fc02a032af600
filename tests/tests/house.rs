//! The rules of the house that no compiler checks: who may import whom, which module may name what, how
//! long files get, and what must not be in them. The reasons are in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate's folder and name, and the crates of ours that it may depend on.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("ring", "starling-ring", &[]),
    ("client/protocol", "starling-protocol", &[]),
    ("storage", "starling-storage", &["starling-ring"]),
    ("client", "starling-client", &["starling-protocol", "starling-ring"]),
    ("node", "starling-node", &["starling-ring", "starling-storage", "starling-protocol"]),
    ("node/cli", "starling-cli", &["starling-node", "starling-client"]),
    (
        "tests",
        "starling-tests",
        &[
            "starling-ring",
            "starling-protocol",
            "starling-storage",
            "starling-client",
            "starling-node",
            "starling-cli",
        ],
    ),
];

/// What may lie at the top, apart from names that begin with a dot.
const TOP: &[&str] = &[
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "client",
    "clippy.toml",
    "config",
    "node",
    "ring",
    "rustfmt.toml",
    "storage",
    "tests",
    // Made by building and running; not part of the repository.
    "data",
    "target",
];

/// Names that say nothing about what is inside.
const VAGUE: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "types", "util", "utils"];

/// The most lines a file may have before its inline tests, and the tables that may have more.
const LINES_MAX: usize = 500;
const LONG_TABLES: &[&str] = &[];

/// Where a test may let time pass, by what it sleeps for, and why.
const MAY_SLEEP: &[(&str, &str, &str)] = &[
    ("", "LOOK_EVERY", "between two looks at a condition"),
    ("client/tests/library/fake.rs", "wait", "a node that answers late, as the test asks"),
    ("tests/src/bench/live.rs", "IDLE_AFTER", "an idle node is what is measured"),
    (
        "tests/src/sim/",
        "",
        "simulated time, in which faults and pauses last as long as the seed says",
    ),
    ("tests/tests/bad_frames/patience.rs", "BYTE_EVERY", "a client that sends slowly"),
    ("tests/tests/kills.rs", "LASTS", "a state of things that lasts under load"),
    ("tests/tests/stopped.rs", "STOPPED_FOR", "a stopped node under load"),
];

struct Source {
    /// Relative to the repository, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    fn krate(&self) -> &'static str {
        let folders = CRATES.iter().map(|(folder, ..)| *folder);
        let inside = folders.filter(|folder| self.path.starts_with(&format!("{folder}/")));
        inside.max_by_key(|folder| folder.len()).expect("every source file is in a crate")
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The lines that are code, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Where `needle` is in the code.
    fn naming(&self, needle: &str) -> Vec<String> {
        let hits = self.code().filter(|(_, line)| line.contains(needle));
        hits.map(|(number, _)| format!("{}:{number}", self.path)).collect()
    }

    fn lines_before_tests(&self) -> usize {
        let lines: Vec<_> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].starts_with("mod tests {")
        });
        tests.unwrap_or(lines.len())
    }
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the crate lies in the repository").to_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("names are text")
}

/// Every Rust file of the workspace.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut folders: Vec<_> = ["ring", "storage", "client", "node", "tests"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).expect("it lies below the root");
                let relative = relative.to_string_lossy().replace('\\', "/");
                let text = fs::read_to_string(&path).expect("source files are text");
                sources.push(Source { path: relative, text });
            }
        }
    }
    assert!(sources.len() > 50, "only {} source files were found", sources.len());
    sources
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).expect("every crate has a manifest");
    text.parse().expect("manifests are TOML")
}

/// All dependencies of a crate, for building, running and testing.
fn dependencies(folder: &str) -> BTreeMap<String, toml::Value> {
    let manifest = manifest(folder);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table());
    tables.flat_map(|table| table.clone()).collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_import_only_whom_they_may() {
    let workspace = manifest("");
    let members = workspace["workspace"]["members"].as_array().expect("members are a list");
    let members: BTreeSet<_> = members.iter().filter_map(|member| member.as_str()).collect();
    let known: BTreeSet<_> = CRATES.iter().map(|(folder, ..)| *folder).collect();
    assert_eq!(members, known, "every crate has its rule here");
    let mut wrong = Vec::new();
    for (folder, krate, allowed) in CRATES {
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(*krate));
        for dependency in dependencies(folder).keys() {
            if dependency.starts_with("starling-") && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{krate} -> {dependency}"));
            }
        }
    }
    assert_none(&wrong, "these imports are against the direction of the architecture");
}

#[test]
fn the_ring_and_the_protocol_do_no_io() {
    let mut wrong = Vec::new();
    for folder in ["ring", "client/protocol"] {
        for dependency in dependencies(folder).keys() {
            if ["tokio", "tokio-util", "rocksdb", "socket2", "axum"].contains(&dependency.as_str())
            {
                wrong.push(format!("{folder} -> {dependency}"));
            }
        }
    }
    for source in sources() {
        if ["ring", "client/protocol"].contains(&source.krate()) && !source.is_test() {
            for needle in
                ["std::fs", "std::net::Tcp", "std::net::Udp", "std::thread", "Instant::now"]
            {
                wrong.extend(source.naming(needle));
            }
        }
    }
    assert_none(&wrong, "these crates are pure");
}

#[test]
fn versions_are_in_the_workspace_manifest_only() {
    let mut wrong = Vec::new();
    for (folder, ..) in CRATES {
        for (dependency, value) in dependencies(folder) {
            if value.get("workspace") != Some(&toml::Value::Boolean(true)) {
                wrong.push(format!("{folder}/Cargo.toml: {dependency}"));
            }
        }
    }
    assert_none(&wrong, "write `NAME.workspace = true`");
}

#[test]
fn one_module_names_rocksdb() {
    let users = CRATES.iter().filter(|(folder, ..)| dependencies(folder).contains_key("rocksdb"));
    assert_eq!(users.map(|(folder, ..)| *folder).collect::<Vec<_>>(), ["storage"]);
    let naming = sources().into_iter().filter(|source| {
        !source.naming("rocksdb::").is_empty() && source.path != "tests/tests/house.rs"
    });
    let naming: Vec<_> = naming.map(|source| source.path).collect();
    assert_eq!(naming, ["storage/src/store/rocks.rs"]);
}

#[test]
fn one_module_of_a_crate_names_tokio_net() {
    let mut modules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources() {
        let library = source.path.starts_with(&format!("{}/src/", source.krate()));
        if library && !source.naming("tokio::net").is_empty() {
            modules.entry(source.krate()).or_default().push(source.path);
        }
    }
    for (krate, modules) in modules {
        assert_eq!(modules.len(), 1, "{krate} names tokio's sockets in {modules:?}");
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let lines = source.lines_before_tests();
        if lines > LINES_MAX && !LONG_TABLES.contains(&source.path.as_str()) {
            long.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert_none(&long, "a file holds one thing, in at most 500 lines before its tests");
}

#[test]
fn files_say_what_they_are_for() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    let silent: Vec<_> = silent.map(|source| source.path).collect();
    assert_none(&silent, "a file begins with what it owns, its invariant, and what it does not do");
}

#[test]
fn names_say_what_is_inside() {
    let mut vague = Vec::new();
    for source in sources() {
        let stems = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        if stems.into_iter().any(|stem| VAGUE.contains(&stem)) {
            vague.push(source.path);
        }
    }
    assert_none(&vague, "name the thing that the file holds");
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            // In pieces, so that this file passes.
            let marks = [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("X", "XX"),
                concat!("#[", "ignore"),
            ];
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    assert_none(&wrong, "finish it, or leave it out");
}

#[test]
fn tests_do_not_sleep_to_synchronise() {
    // In pieces, so that this file passes.
    let sleep = concat!("sle", "ep(");
    let mut sleeping = Vec::new();
    for source in sources().into_iter().filter(Source::is_test) {
        let may = |line: &str| {
            MAY_SLEEP.iter().any(|(path, what, _)| {
                source.path.starts_with(path) && line.contains(&format!("{sleep}{what}"))
            })
        };
        let hits = source.code().filter(|(_, line)| line.contains(sleep) && !may(line));
        sleeping.extend(hits.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    assert_none(&sleeping, "wait for the condition itself");
}

#[test]
fn nothing_depends_on_one_machine() {
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut wrong = Vec::new();
    for source in sources() {
        for (at, line) in source.text.lines().enumerate() {
            if homes.iter().any(|home| line.contains(home)) {
                wrong.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    assert_none(&wrong, "no path of anybody's home");
}

#[test]
fn the_top_level_stays_as_it_is() {
    let entries = entries(&root());
    let names = entries.iter().map(|path| name(path)).filter(|name| !name.starts_with('.'));
    let strange: Vec<_> = names.filter(|name| !TOP.contains(name)).map(str::to_owned).collect();
    assert_none(&strange, "these do not belong at the top");
}
