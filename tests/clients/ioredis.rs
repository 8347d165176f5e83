//! ioredis, by the scripts in `node/`.

use crate::support::{ConnectionWatch, RedisServer, WeirProcess, libraries};

#[test]
fn ioredis_works() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let watch = ConnectionWatch::start(&redis);
    libraries::node("ioredis.js", &[&weir.address().port().to_string()]);
    watch.assert_at_most(64);
}
