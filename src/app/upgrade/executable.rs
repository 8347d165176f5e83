//! Which file is started as the successor.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How this process was started, to be done again. Taken at the start: the file may be
/// replaced later, and by its path the new one is found.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Executable {
    /// Of this process.
    pub(crate) fn of_this_process() -> Executable {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_else(|| "weir".into());
        Executable {
            path: found(&name, env::var_os("PATH").as_deref()),
            name,
            arguments: arguments.collect(),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The command that starts it with the same arguments.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        command
    }
}

/// The path by which a program of this name was started. Links are not followed: a new
/// version may be a link that leads elsewhere.
fn found(name: &OsStr, path: Option<&OsStr>) -> PathBuf {
    let named = Path::new(name);
    if named.components().count() > 1 || named.is_absolute() {
        return std::path::absolute(named).unwrap_or_else(|_| named.to_owned());
    }
    let mut places = path.map(env::split_paths).into_iter().flatten();
    let in_path = places.find_map(|place| Some(place.join(named)).filter(|it| it.is_file()));
    in_path
        .or_else(|| env::current_exe().ok())
        .unwrap_or_else(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_as_the_shell_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("weir");
        std::fs::write(&file, "").unwrap();
        let path = directory.path().as_os_str();
        assert_eq!(found("weir".as_ref(), Some(path)), file);
        assert_eq!(found(file.as_os_str(), None), file);
        let here = env::current_dir().unwrap();
        assert_eq!(found("./weir".as_ref(), Some(path)), here.join("weir"));
        let other = found("no-such-weir".as_ref(), Some(path));
        assert_eq!(other, env::current_exe().unwrap());
    }
}
