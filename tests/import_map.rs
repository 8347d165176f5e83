//! The floor plan, enforced: a room of `src/` imports only from the floors below.
//!
//! [`FLOORS`] is the one definition. `make map` runs this test and shows what it prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms by floor, lowest first. `main.rs` and `lib.rs` are not rooms: they hold the house
/// together and may name every room.
const FLOORS: [&[&str]; 7] = [
    &["resp", "config", "metrics"],
    &["command", "net", "admission"],
    &["router", "backend"],
    &["discovery", "pubsub", "blocking"],
    &["session"],
    &["admin"],
    &["app"],
];

/// For each room the rooms it imports, and for each of those the files that do.
type Map = BTreeMap<String, BTreeMap<String, BTreeSet<PathBuf>>>;

#[test]
fn imports_point_down() {
    let map = read_map();
    print(&map);
    let wrong: Vec<String> = map
        .iter()
        .flat_map(|(room, imports)| imports.iter().map(move |import| (room, import)))
        .filter(|(room, (imported, _))| floor(imported) >= floor(room))
        .map(|(room, (imported, files))| format!("{room} imports {imported} in {files:?}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "imports that do not point down:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn every_room_has_a_floor() {
    for room in rooms() {
        assert!(
            floor(&room).is_some(),
            "src/{room} has no floor in tests/import_map.rs"
        );
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let source = "
        use crate::resp;
        use crate::{config::Config, net::{self, Socket}};
        use crate::{
            metrics,
            admission::{limits, permit}
        };
        // use crate::app;
        /// See [`crate::session`].
        fn f() -> crate::backend::Lease { super::super::router::route() }
    ";
    let file = Path::new("command/table.rs");
    let expected = [
        "admission",
        "backend",
        "config",
        "metrics",
        "net",
        "resp",
        "router",
    ];
    let found = imports_in(source, file)
        .into_iter()
        .filter(|name| floor(name).is_some());
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The directories and files of `src/`, as module names.
fn rooms() -> BTreeSet<String> {
    fs::read_dir(source())
        .expect("src/")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| !["main", "lib"].contains(&name.as_str()))
        .collect()
}

fn read_map() -> Map {
    let rooms = rooms();
    let mut map: Map = rooms
        .iter()
        .map(|room| (room.clone(), BTreeMap::new()))
        .collect();
    for path in rust_files(&source()) {
        let file = path
            .strip_prefix(source())
            .expect("a file of src/")
            .to_path_buf();
        let room = file
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy();
        let room = room.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).expect("a source file");
        let Some(imports) = map.get_mut(&room) else {
            continue;
        };
        for imported in imports_in(&text, &file) {
            if imported != room && rooms.contains(&imported) {
                imports.entry(imported).or_default().insert(file.clone());
            }
        }
    }
    map
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                vec![path]
            } else {
                Vec::new()
            }
        })
        .collect()
}

/// The top-level modules that `text` names, by `crate::` or by enough `super::`.
fn imports_in(text: &str, file: &Path) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(without_comment)
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        found.extend(first_names(&code[at + "crate::".len()..]));
    }
    // From `room/mod.rs` one `super::` reaches the crate's root, from `room/file.rs` two; each
    // inline module adds one. Counting all inline modules of the file may miss an import
    // written this way in a file that has some, but never blames an innocent one.
    let names_no_module = file.file_name().is_some_and(|name| name == "mod.rs");
    let inline_modules = code
        .lines()
        .filter(|line| line.contains("mod ") && line.contains('{'))
        .count();
    let depth = file.components().count() - usize::from(names_no_module) + inline_modules;
    let to_root = "super::".repeat(depth);
    for (at, _) in code.match_indices(&to_root) {
        found.extend(first_names(&code[at + to_root.len()..]));
    }
    found
}

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// The names that follow a `crate::`: one, or the outermost of a braced list.
fn first_names(text: &str) -> Vec<String> {
    let Some(list) = text.strip_prefix('{') else {
        return vec![leading_name(text)];
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut item_start = 0;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(leading_name(&list[item_start..at]));
                item_start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    let is_name = |character: &char| character.is_alphanumeric() || *character == '_';
    text.trim_start().chars().take_while(is_name).collect()
}

fn print(map: &Map) {
    println!("\nfloor  room        imports");
    for (number, rooms) in FLOORS.iter().enumerate().rev() {
        for room in rooms.iter().filter(|room| map.contains_key(**room)) {
            let imports = map[*room]
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" ");
            println!(
                "{number:>5}  {room:<10}  {}",
                if imports.is_empty() { "-" } else { &imports }
            );
        }
    }
    println!();
}
