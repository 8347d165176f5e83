//! Errors that say what the node is, rather than what is wrong with a command.

/// Whether an error says what the node is and that nothing has run. One from within a
/// script does not: what the script did before has.
pub fn is_about_node(reply: &[u8]) -> bool {
    let codes: [&[u8]; 3] = [b"-READONLY ", b"-LOADING ", b"-MASTERDOWN "];
    codes.iter().any(|code| reply.starts_with(code))
        && memchr::memmem::find(reply, b" script: ").is_none()
}

/// Whether a node ends a blocking command because it is no primary any more. Nothing was
/// taken. Not what `CLIENT UNBLOCK` has a client read.
pub fn is_demoted(reply: &[u8]) -> bool {
    reply.starts_with(b"-UNBLOCKED force")
}

#[cfg(test)]
mod tests {
    use super::is_about_node;

    #[test]
    fn an_error_from_within_a_script_says_that_something_may_have_run() {
        assert!(is_about_node(
            b"-READONLY You can't write against a read only replica.\r\n"
        ));
        assert!(is_about_node(
            b"-LOADING Redis is loading the dataset in memory\r\n"
        ));
        assert!(!is_about_node(
            b"-READONLY You can't write against a read only replica. script: ab, on @user_script:1.\r\n"
        ));
        assert!(!is_about_node(b"-OOM command not allowed\r\n"));
        assert!(!is_about_node(b"$9\r\n-READONLY\r\n"));
    }
}
