//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{fetch, logging, serve, top, upgrade};
use crate::config::{Config, Flags, Mistakes, Reload, Source};
use crate::net::Inherited;

/// A configuration with mistakes, or a Weir that could not run.
const EXIT_FAILED: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  weir --listen 127.0.0.1:6380 --backend 127.0.0.1:6379
      Serve clients on port 6380 over a few connections to the Redis on 6379.
      Everything else has its default.

  weir --config weir.toml
      The same with all settings from a file. config/weir.toml lists them.

  weir check --config weir.toml
      Name every mistake in the file and exit; nothing is started.

  weir top
      Watch the Weir on this machine: who holds the connections, what is refused.

  weir record --admin 127.0.0.1:6390 > record.md
      Keep what happened in a running Weir, for a post-mortem.

  WEIR_LOG=info,weir::backend=debug weir --config weir.toml
      Log more about one part of Weir.

Metrics and health are on http://127.0.0.1:6390 (/metrics, /healthz, /readyz)
unless --admin or the file says otherwise. Ctrl-C or SIGTERM stops Weir, SIGHUP reads its
file again, SIGUSR2 replaces it by a new process of its executable.";

/// The connection-limiting proxy for Redis and Valkey.
///
/// Thousands of clients connect to Weir; Redis sees a few connections, never more
/// than configured.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXAMPLES)]
#[command(arg_required_else_help = true, subcommand_negates_reqs = true)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Run {
    /// Read all settings from this file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["listen", "backend"])]
    config: Option<PathBuf>,

    /// Where clients connect, such as 127.0.0.1:6380; may be given more than once
    #[arg(short, long, value_name = "IP:PORT")]
    listen: Vec<String>,

    /// Where Redis is, such as 127.0.0.1:6379; no file is needed then
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        required_unless_present = "config"
    )]
    backend: Option<String>,

    /// Where metrics and health are served, or "off"
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,

    /// Worker threads; 0 for one on each core
    #[arg(long, value_name = "NUMBER")]
    workers: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name every mistake in a configuration file; exit with 1 if there is any
    Check {
        /// The file to check
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,

        /// Also what a reload of it would change in the Weir with this admin address; exit
        /// with 1 if it would be refused
        #[arg(long, value_name = "IP:PORT")]
        against: Option<SocketAddr>,
    },
    /// Ask a running Weir whether it is well; exit with 1 if it is not
    Health {
        /// Its admin address
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6390")]
        admin: SocketAddr,
        /// Also whether every route has a Redis that can be used
        #[arg(long)]
        ready: bool,
    },

    /// Ask a running Weir what is wrong, what shows it, and what to do
    Doctor {
        /// Where the running Weir serves metrics and health
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6390")]
        admin: SocketAddr,

        /// As JSON
        #[arg(long)]
        json: bool,
    },

    /// Watch a running Weir in a terminal: who holds the connections, how the nodes are, what happens
    Top {
        /// Where the running Weir serves metrics and health
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6390")]
        admin: SocketAddr,

        /// Once, as plain text, for scripts; so it is where there is no terminal
        #[arg(long)]
        once: bool,

        /// Seconds between two looks
        #[arg(short, long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        delay: u64,
    },

    /// Write out what a running Weir has recorded: events and numbers over time, in UTC
    Record {
        /// Where the running Weir serves metrics and health
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6390")]
        admin: SocketAddr,

        /// "markdown" for people, "json" for everything that is kept
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Markdown)]
        format: Format,
    },
}

/// How the record is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

/// Runs the program: reads the command line and does what it says.
pub fn main() -> ExitCode {
    let Cli { run, command } = Cli::parse();
    match command {
        Some(Command::Check { config, against }) => check(config, against),
        Some(Command::Health { admin, ready }) => tell_health(admin, ready),
        Some(Command::Doctor { admin, json }) => doctor(admin, json),
        Some(Command::Top { admin, once, delay }) => watch(admin, once, delay),
        Some(Command::Record { admin, format }) => record(admin, format),
        None => match configuration(run) {
            Ok((source, config)) => start(source, config),
            Err(mistakes) => {
                upgrade::complain(&mistakes.to_string());
                refuse(&mistakes)
            }
        },
    }
}

/// Where the settings come from, and what they are.
fn configuration(run: Run) -> Result<(Source, Config), Mistakes> {
    let flags = Flags {
        listen: run.listen,
        backend: run.backend,
        admin: run.admin,
        workers: run.workers,
        log: std::env::var("WEIR_LOG")
            .ok()
            .filter(|filter| !filter.is_empty()),
    };
    let source = match run.config {
        Some(path) => Source::file(&path, flags)?,
        None => Source::flags(flags),
    };
    let config = source.config(&[])?;
    Ok((source, config))
}

fn start(source: Source, config: Config) -> ExitCode {
    // First of all, since nothing has opened a descriptor yet.
    let inherited = Inherited::from_systemd();
    let run = || {
        let set_filter = logging::start(&config.log)?;
        serve::run(source, config, set_filter, inherited?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            upgrade::complain(&error.to_string());
            eprintln!("weir: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn check(path: PathBuf, against: Option<SocketAddr>) -> ExitCode {
    match Config::load(&path, &Flags::default()) {
        Ok(config) => {
            println!("{}: no mistakes", path.display());
            for warning in &config.warnings {
                println!("warning: {warning}");
            }
            print!("{}", summary(&config));
            match against {
                Some(admin) => compare(&config, admin),
                None => ExitCode::SUCCESS,
            }
        }
        Err(mistakes) => refuse(&mistakes),
    }
}

/// A health probe gives up after a second or more, and a Weir that has to be waited for
/// longer is not well.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// A record can be large and the machine busy.
const RECORD_PATIENCE: Duration = Duration::from_secs(10);

fn tell_health(admin: SocketAddr, ready: bool) -> ExitCode {
    let path = if ready { "/readyz" } else { "/healthz" };
    tell(admin, path, HEALTH_PATIENCE)
}

fn doctor(admin: SocketAddr, json: bool) -> ExitCode {
    let path = if json { "/doctor.json" } else { "/doctor" };
    tell(admin, path, RECORD_PATIENCE)
}

fn watch(admin: SocketAddr, once: bool, delay: u64) -> ExitCode {
    match top::run(admin, Duration::from_secs(delay), once) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: http://{admin}: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn record(admin: SocketAddr, format: Format) -> ExitCode {
    let path = match format {
        Format::Markdown => "/record.md",
        Format::Json => "/record.json",
    };
    tell(admin, path, RECORD_PATIENCE)
}

/// Prints what a running Weir answers; exits with 1 if it says no, or nothing.
fn tell(admin: SocketAddr, path: &str, patience: Duration) -> ExitCode {
    let told = fetch::get(admin, path, patience);
    match told.and_then(|body| std::io::stdout().write_all(&body)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: http://{admin}{path}: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Says what a reload of `config` would do to the Weir with this admin address.
fn compare(config: &Config, admin: SocketAddr) -> ExitCode {
    let running = match fetch::get(admin, "/config.json", HEALTH_PATIENCE) {
        Ok(running) => running,
        Err(error) => {
            eprintln!("weir: http://{admin}/config.json: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let Some(running) = listing_of(&running) else {
        eprintln!("weir: http://{admin}/config.json: not the settings of a Weir");
        return ExitCode::from(EXIT_FAILED);
    };
    let changes = config.changes_since(running);
    let restart = changes.iter().filter(|it| it.reload == Reload::Restart);
    let restart = restart.count();
    match (changes.len(), restart) {
        (0, _) => println!("a reload would change nothing (passwords are not compared)"),
        (_, 0) => println!("a reload would change:"),
        _ => println!("a reload would be refused, since some of this needs a restart:"),
    }
    for change in &changes {
        println!("  {change}");
    }
    match restart {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_FAILED),
    }
}

/// Settings by name, as `/config.json` tells them.
fn listing_of(json: &[u8]) -> Option<Vec<(String, String)>> {
    let listing: serde_json::Value = serde_json::from_slice(json).ok()?;
    let settings = listing.as_object()?.iter();
    settings
        .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn refuse(mistakes: &Mistakes) -> ExitCode {
    eprintln!("{mistakes}");
    ExitCode::from(EXIT_FAILED)
}

/// What a configuration amounts to: a line for each route and one for the admin address.
fn summary(config: &Config) -> String {
    let mut text = String::new();
    for route in &config.routes {
        let doors = route.doors().map(|door| {
            let tls = if door.is_tls() { " (TLS)" } else { "" };
            format!("{}{tls}", door.address)
        });
        let listen: Vec<String> = doors.collect();
        text += &format!(
            "route {}: {} -> {}, at most {} clients over at most {} connections\n",
            route.name,
            listen.join(" "),
            route.backend.first_address(),
            route.clients.max_clients,
            route.backend.max_connections,
        );
    }
    let admin = config
        .admin
        .listen
        .map_or("off".to_owned(), |address| address.to_string());
    text += &format!("admin: {admin}\nworkers: {}\n", config.process.workers);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
