//! What one client knows of the keys that are its own.

use std::collections::HashMap;

/// A value of a type that the clients use.
#[derive(Clone, Debug)]
pub enum Value {
    /// `SET`.
    Text(Vec<u8>),
    /// `RPUSH`.
    List(Vec<Vec<u8>>),
}

/// One client's own keys, by database: nobody else touches them, so what Redis must
/// answer is known exactly.
#[derive(Default, Debug)]
pub struct Memory {
    databases: HashMap<u64, HashMap<String, Value>>,
}

/// The reply to a command on a key of the wrong type.
pub const WRONG_TYPE: &[u8] =
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";

impl Memory {
    fn of(&mut self, db: u64) -> &mut HashMap<String, Value> {
        self.databases.entry(db).or_default()
    }

    /// `SET key value`.
    pub fn set(&mut self, db: u64, key: &str, value: &[u8]) -> Vec<u8> {
        self.of(db)
            .insert(key.to_owned(), Value::Text(value.to_vec()));
        b"+OK\r\n".to_vec()
    }

    /// `GET key`.
    pub fn get(&mut self, db: u64, key: &str, resp3: bool) -> Vec<u8> {
        match self.of(db).get(key) {
            None => null(resp3),
            Some(Value::Text(text)) => bulk(text),
            Some(Value::List(_)) => WRONG_TYPE.to_vec(),
        }
    }

    /// `APPEND key value`.
    pub fn append(&mut self, db: u64, key: &str, value: &[u8]) -> Vec<u8> {
        let entry = self.of(db).entry(key.to_owned());
        match entry.or_insert_with(|| Value::Text(Vec::new())) {
            Value::Text(text) => {
                text.extend_from_slice(value);
                integer(text.len())
            }
            Value::List(_) => WRONG_TYPE.to_vec(),
        }
    }

    /// `DEL key`.
    pub fn del(&mut self, db: u64, key: &str) -> Vec<u8> {
        integer(usize::from(self.of(db).remove(key).is_some()))
    }

    /// `RPUSH key element`.
    pub fn push(&mut self, db: u64, key: &str, element: &[u8]) -> Vec<u8> {
        let entry = self.of(db).entry(key.to_owned());
        match entry.or_insert_with(|| Value::List(Vec::new())) {
            Value::List(list) => {
                list.push(element.to_vec());
                integer(list.len())
            }
            Value::Text(_) => WRONG_TYPE.to_vec(),
        }
    }

    /// `LPOP key`.
    pub fn pop(&mut self, db: u64, key: &str, resp3: bool) -> Vec<u8> {
        let keys = self.of(db);
        let reply = match keys.get_mut(key) {
            None => return null(resp3),
            Some(Value::Text(_)) => return WRONG_TYPE.to_vec(),
            Some(Value::List(list)) => bulk(&list.remove(0)),
        };
        if matches!(keys.get(key), Some(Value::List(list)) if list.is_empty()) {
            keys.remove(key);
        }
        reply
    }

    /// `LRANGE key 0 -1`.
    pub fn range(&mut self, db: u64, key: &str) -> Vec<u8> {
        match self.of(db).get(key) {
            None => array(&[]),
            Some(Value::Text(_)) => WRONG_TYPE.to_vec(),
            Some(Value::List(list)) => {
                array(&list.iter().map(|element| bulk(element)).collect::<Vec<_>>())
            }
        }
    }
}

/// A bulk string.
pub fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// An integer.
pub fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

/// An array of replies.
pub fn array(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut reply = format!("*{}\r\n", elements.len()).into_bytes();
    elements
        .iter()
        .for_each(|element| reply.extend_from_slice(element));
    reply
}

/// Nothing, as a bulk string.
pub fn null(resp3: bool) -> Vec<u8> {
    if resp3 {
        b"_\r\n".to_vec()
    } else {
        b"$-1\r\n".to_vec()
    }
}
