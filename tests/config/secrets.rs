//! Secrets show in no output.

use weir::config::Config;

use crate::mistakes;

#[test]
fn secrets_show_in_no_output() {
    let config = r#"
        [route.main.backend]
        address = "127.0.0.1:6379"
        username = "weir"
        password = "geheim"
        [route.main.auth]
        mode = "weir"
        users.alice.password = "geheim"
    "#;
    let parsed = Config::parse("weir.toml", config).unwrap();
    assert!(!format!("{parsed:?} {parsed:#?}").contains("geheim"));

    let misplaced = [
        "route.main.backend = \"redis://weir:geheim@127.0.0.1:6379\"",
        "route.main.backend = { address = \"geheim@h:1\", passwort = \"geheim\" }",
        "route.main = { backend = \"h:1\", auth.users.alice = \"geheim\" }",
        "route.main.backend = { address = \"h:1\", password_env = \"geheim!\" }",
        "route.main.backend = { address = \"h:1\", password = [\"geheim\"] }",
        "route.main.backend = { address = \"h:1\", password = geheim }",
        "route.main.backend = { address = \"h:1\", password = \"geheim }",
        "password = \"geheim\"",
    ];
    for config in misplaced {
        let said = mistakes(config).join("\n");
        assert!(!said.contains("geheim"), "{config}: {said}");
    }
}
