//! Every configuration that the documents show passes `weir check`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents, README first.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs")).expect("docs/") {
        let path = entry.expect("an entry").path();
        // The list of settings shows each by itself.
        let is_list = path.ends_with("CONFIGURATION.md");
        if path.extension().is_some_and(|extension| extension == "md") && !is_list {
            pages.push(path);
        }
    }
    pages
}

/// The blocks of a page that are TOML and begin a route; others are excerpts.
fn configurations(page: &str) -> impl Iterator<Item = &str> {
    page.split("\n```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```"))
        .map(|(block, _)| block)
        .filter(|block| {
            block
                .lines()
                .any(|line| line == "[route.main]" || line == "[route.cache]")
        })
}

/// The block with the certificates that it names in `folder`, where they are made.
fn with_files_in(folder: &Path, block: &str) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let is_file = |word: &&str| word.ends_with(".crt") || word.ends_with(".key");
    for name in block.split('"').filter(is_file) {
        let pem = match name.ends_with(".key") {
            true => made.signing_key.serialize_pem(),
            false => made.cert.pem(),
        };
        let name = name.trim_start_matches("/etc/weir/");
        std::fs::write(folder.join(name), pem).expect("written");
    }
    block.replace("/etc/weir/", &format!("{}/", folder.display()))
}

#[test]
fn every_configuration_in_the_documents_has_no_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("weir.toml");
    let mut checked = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for block in configurations(&text) {
            std::fs::write(&file, with_files_in(folder.path(), block)).expect("written");
            let run = Command::new(env!("CARGO_BIN_EXE_weir"))
                .args(["check", "--config"])
                .arg(&file)
                .output()
                .expect("weir runs");
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{}:\n{block}\n{said}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked} configurations found");
}
