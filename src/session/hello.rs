//! Placeholder: the real module is on its way and replaces this file whole.
use crate::backend::ServerFacts;
use crate::resp::{Value, Version};
/// x
#[derive(Debug)]
pub struct Hello {
    /// v
    pub version: Option<Version>,
    /// a
    pub auth: Option<(Vec<u8>, Vec<u8>)>,
    /// n
    pub name: Option<Vec<u8>>,
}
/// x
pub fn parse(args: &[&[u8]]) -> Result<Hello, String> {
    let version = match args.get(1) {
        None => None,
        Some(&b"2") => Some(Version::Resp2),
        Some(&b"3") => Some(Version::Resp3),
        _ => return Err("NOPROTO unsupported protocol version".into()),
    };
    Ok(Hello {
        version,
        auth: None,
        name: None,
    })
}
/// x
pub fn not_authenticated(_v: (u8, u8, u8)) -> String {
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time".into()
}
/// x
pub fn hello_reply(facts: &ServerFacts, id: u64, version: Version) -> Value {
    let v = facts.version;
    Value::map(vec![
        (Value::bulk("server"), Value::bulk("redis")),
        (
            Value::bulk("version"),
            Value::bulk(format!("{}.{}.{}", v.0, v.1, v.2)),
        ),
        (
            Value::bulk("proto"),
            Value::integer(if version == Version::Resp3 { 3 } else { 2 }),
        ),
        (Value::bulk("id"), Value::integer(id as i64)),
        (Value::bulk("mode"), Value::bulk("standalone")),
        (Value::bulk("role"), Value::bulk("master")),
        (Value::bulk("modules"), Value::array(vec![])),
    ])
}
