//! The client libraries of other languages that the tests use Weir with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a script of `tests/clients/python` with redis-py at hand; panics if it fails.
pub fn python(script: &str, arguments: &[&str]) -> Output {
    let interpreter = project().join(".venv/bin/python");
    run(
        interpreter,
        project().join("tests/clients/python").join(script),
        arguments,
    )
}

/// Runs a script of `tests/clients/node` with ioredis at hand; panics if it fails.
pub fn node(script: &str, arguments: &[&str]) -> Output {
    let directory = project().join("tests/clients/node");
    let modules = directory.join("node_modules");
    assert!(
        modules.exists(),
        "{modules:?} is missing: run scripts/client-libraries"
    );
    run(PathBuf::from("node"), directory.join(script), arguments)
}

fn run(interpreter: PathBuf, script: PathBuf, arguments: &[&str]) -> Output {
    let mut command = Command::new(&interpreter);
    command.arg(&script).args(arguments);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{interpreter:?}: {error}; run scripts/client-libraries"));
    assert!(
        output.status.success(),
        "{script:?} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
