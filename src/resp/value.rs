//! A value of RESP, for the places where Weir itself reads or writes one.

/// One value of RESP2 or RESP3.
///
/// Unlike the frames of `redis-protocol`, through which it is decoded and
/// encoded, it keeps the pairs of a map in the order they came in, can write both
/// nulls of RESP2, and does not ask an error text to be UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Vec<u8>),
    /// `-ERR …`, or RESP3's `!` for longer ones. Without the type byte.
    Error(Vec<u8>),
    /// `:1`
    Integer(i64),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1`, or `_` in RESP3.
    Null,
    /// `*-1`, or `_` in RESP3. Decoded only where it is the whole value; within
    /// another one it is read as [`Value::Null`].
    NullArray,
    /// `*2`
    Array(Vec<Value>),
    /// `%1`; a flat array in RESP2.
    Map(Vec<(Value, Value)>),
    /// `~2`; an array in RESP2.
    Set(Vec<Value>),
    /// `>2`; an array in RESP2.
    Push(Vec<Value>),
    /// `=7`; a bulk string in RESP2.
    Verbatim(VerbatimFormat, Vec<u8>),
    /// `,1.5`; a bulk string in RESP2.
    Double(f64),
    /// `#t`; `:1` in RESP2.
    Boolean(bool),
    /// `(123`; a bulk string in RESP2.
    BigNumber(Vec<u8>),
}

/// How a verbatim string is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerbatimFormat {
    /// `txt`
    Text,
    /// `mkd`
    Markdown,
}

impl Value {
    /// A status such as `+OK`.
    pub fn simple(text: impl Into<Vec<u8>>) -> Self {
        Self::Simple(text.into())
    }

    /// An error; `text` begins with its code: `ERR no such key`.
    pub fn error(text: impl Into<Vec<u8>>) -> Self {
        Self::Error(text.into())
    }

    /// An integer.
    pub fn integer(number: i64) -> Self {
        Self::Integer(number)
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// Nothing: no such key.
    pub fn null() -> Self {
        Self::Null
    }

    /// Nothing in the place of an array, which RESP2 writes as `*-1`.
    pub fn null_array() -> Self {
        Self::NullArray
    }

    /// An array.
    pub fn array(values: impl Into<Vec<Value>>) -> Self {
        Self::Array(values.into())
    }

    /// A map, its pairs in this order.
    pub fn map(pairs: impl Into<Vec<(Value, Value)>>) -> Self {
        Self::Map(pairs.into())
    }

    /// A set, its members in this order; that they differ is the caller's business.
    pub fn set(members: impl Into<Vec<Value>>) -> Self {
        Self::Set(members.into())
    }

    /// A message that answers no request.
    pub fn push(values: impl Into<Vec<Value>>) -> Self {
        Self::Push(values.into())
    }

    /// Text for people, as of `INFO`.
    pub fn verbatim_txt(text: impl Into<Vec<u8>>) -> Self {
        Self::Verbatim(VerbatimFormat::Text, text.into())
    }

    /// A floating-point number.
    pub fn double(number: f64) -> Self {
        Self::Double(number)
    }

    /// True or false.
    pub fn boolean(truth: bool) -> Self {
        Self::Boolean(truth)
    }

    /// The bytes of whatever is a string, an error or a big number.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(bytes)
            | Self::Error(bytes)
            | Self::Bulk(bytes)
            | Self::Verbatim(_, bytes)
            | Self::BigNumber(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The same as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// An integer, or a string that reads as one, or 1 and 0 for a boolean.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Boolean(truth) => Some(i64::from(*truth)),
            Self::Error(_) => None,
            other => other.as_str()?.parse().ok(),
        }
    }

    /// The elements of an array, set or push.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(values) | Self::Set(values) | Self::Push(values) => Some(values),
            _ => None,
        }
    }

    /// The pairs of a map, or of an array that RESP2 sends in its place. `None`
    /// for anything else, an array of odd length included.
    pub fn pairs(&self) -> Option<Vec<(&Value, &Value)>> {
        match self {
            Self::Map(pairs) => Some(pairs.iter().map(|(key, value)| (key, value)).collect()),
            Self::Array(flat) if flat.len() % 2 == 0 => Some(
                flat.chunks_exact(2)
                    .map(|pair| (&pair[0], &pair[1]))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// What a map, or the flat array that stands for one, holds under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let pairs = self.pairs()?;
        pairs
            .into_iter()
            .find(|(k, _)| k.as_bytes() == Some(key.as_bytes()))
            .map(|(_, v)| v)
    }

    /// True for an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// True for either null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null | Self::NullArray)
    }
}
