//! `weir top`: who holds the connections and how it grows, how the nodes are, what happens;
//! live, in a terminal. It asks the admin server of a running Weir every other second, and
//! only looks.
//!
//! What is known is [`look`], what keys do [`screen`], both pure; here is the terminal.

// There is no worker here: this is a program of its own, which waits between two looks.
#![allow(clippy::disallowed_methods)]

mod draw;
mod look;
mod plain;
mod screen;
mod words;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use self::look::Look;
use self::screen::{Next, Screen};
use super::fetch;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a key is waited for before there may be news.
const TURN: Duration = Duration::from_millis(100);

/// Between the two looks that rates take, for plain text.
const BETWEEN: Duration = Duration::from_secs(1);

/// SIGTERM, SIGINT or SIGHUP came.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Shows it until the operator has seen enough; once, as plain text, if that is asked for or
/// this is no terminal.
///
/// # Errors
/// What the terminal says; for plain text also what Weir says, or the network.
pub fn run(admin: SocketAddr, every: Duration, once: bool) -> io::Result<()> {
    if once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let first = ask(admin, None)?;
        thread::sleep(BETWEEN);
        let look = ask(admin, Some(&first))?;
        return io::stdout().write_all(plain::text(look).as_bytes());
    }
    let news = watch(admin, every);
    end_in_order()?;
    // It has the terminal put back when something panics, too.
    let mut terminal = ratatui::try_init()?;
    let outcome = show(&mut terminal, &news);
    ratatui::try_restore()?;
    outcome
}

/// One answer.
fn ask(admin: SocketAddr, before: Option<&Look>) -> io::Result<Look> {
    let answer = fetch::get(admin, "/top.json", PATIENCE)?;
    let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "not an answer of weir's");
    Look::of(&answer, before).ok_or_else(no_answer)
}

/// Asks again and again, on a thread of its own: a Weir that does not answer keeps no key
/// waiting. Ends with the process.
fn watch(admin: SocketAddr, every: Duration) -> Receiver<Result<Look, String>> {
    // The next answer is asked for when the last was taken.
    let (tell, news) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut before: Option<Look> = None;
        loop {
            let look = ask(admin, before.as_ref());
            if let Ok(look) = &look {
                before = Some(look.clone());
            }
            let told = look.map_err(|error| format!("http://{admin}: {error}"));
            if tell.send(told).is_err() {
                return;
            }
            thread::sleep(every);
        }
    });
    news
}

fn show(terminal: &mut DefaultTerminal, news: &Receiver<Result<Look, String>>) -> io::Result<()> {
    let mut screen = Screen::default();
    let mut is_changed = true;
    while !ENDS.load(Relaxed) {
        while let Ok(look) = news.try_recv() {
            screen.take(look);
            is_changed = true;
        }
        if is_changed {
            terminal.draw(|frame| draw::draw(&screen, frame))?;
        }
        is_changed = event::poll(TURN)?;
        if is_changed
            && let Event::Key(key) = event::read()?
            && screen.key(key) == Next::Quit
        {
            return Ok(());
        }
    }
    Ok(())
}

/// A signal that would end the process has the terminal put back first.
fn end_in_order() -> io::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        ENDS.store(true, Relaxed);
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic.
        let before = unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
