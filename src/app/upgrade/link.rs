//! Lines of JSON between the two processes.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What the other process says.
pub(super) struct Hearing {
    lines: Lines<BufReader<OwnedReadHalf>>,
}

/// Says something to the other process, in order and without waiting.
#[derive(Clone)]
pub(super) struct Saying {
    lines: mpsc::UnboundedSender<Vec<u8>>,
}

/// One message.
#[derive(Debug, PartialEq)]
pub(super) struct Word {
    /// What it is.
    pub(super) name: String,
    /// What belongs to it.
    pub(super) rest: Vec<Value>,
}

impl Word {
    /// What a line says, if it is one.
    pub(super) fn of(line: &str) -> Option<Word> {
        let Ok(Value::Array(mut words)) = serde_json::from_str(line) else {
            return None;
        };
        let rest = words.split_off(1.min(words.len()));
        let name = words.pop()?.as_str()?.to_owned();
        Some(Word { name, rest })
    }

    /// The text at this place; empty if there is none.
    pub(super) fn text(&self, place: usize) -> &str {
        self.rest
            .get(place)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The number at this place; 0 if there is none.
    pub(super) fn number(&self, place: usize) -> usize {
        let number = self.rest.get(place).and_then(Value::as_u64);
        number
            .and_then(|number| number.try_into().ok())
            .unwrap_or(0)
    }
}

/// A message as a line.
pub(super) fn line(words: &Value) -> Vec<u8> {
    let mut line = words.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Begins to speak with the other process. The task ends when everything has been said
/// and nobody is left to say more. Must be called on a local runtime.
///
/// # Errors
/// What the kernel says.
pub(super) fn open(stream: StdStream) -> io::Result<(Hearing, Saying, JoinHandle<()>)> {
    stream.set_nonblocking(true)?;
    let (reads, writes) = UnixStream::from_std(stream)?.into_split();
    let (lines, said) = mpsc::unbounded_channel();
    let writer = tokio::task::spawn_local(write(writes, said));
    let hearing = Hearing {
        lines: BufReader::new(reads).lines(),
    };
    Ok((hearing, Saying { lines }, writer))
}

async fn write(mut stream: OwnedWriteHalf, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stream.write_all(&line).await.is_err() {
            // The other has gone; whoever reads learns of it.
            return;
        }
    }
}

impl Hearing {
    /// The next message that has a name; `None` when the other process has gone. May be
    /// dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Word> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            if let Some(word) = Word::of(&line) {
                return Some(word);
            }
        }
    }
}

impl Saying {
    pub(super) fn say(&self, words: &Value) {
        // Nobody listens any more: whoever reads learns of it.
        let _ = self.lines.send(line(words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_word_is_none() {
        let word = Word::of("[\"lent\",\"main\",\"127.0.0.1:6379\",2]").unwrap();
        assert_eq!(
            (word.text(0), word.text(1), word.number(2)),
            ("main", "127.0.0.1:6379", 2)
        );
        assert_eq!((word.text(2), word.number(7)), ("", 0));
        for line in ["", "[]", "[7]", "{}", "nonsense"] {
            assert_eq!(Word::of(line), None, "{line}");
        }
        assert_eq!(line(&json!(["go"])), b"[\"go\"]\n");
    }
}
