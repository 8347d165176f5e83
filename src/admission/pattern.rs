//! Names with holes: `*` stands for anything, `?` for one byte.

/// Whether the text is what the pattern describes. Takes time in proportion to the product
/// of both lengths at most, whatever they are.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a guess was wrong: behind the last star, one byte further on.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                None => return false,
                Some((behind_star, from)) => {
                    p = behind_star;
                    t = from + 1;
                    retry = Some((behind_star, from + 1));
                }
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_holes() {
        for (pattern, text) in [
            ("batch-*", "batch-1"),
            ("batch-*", "batch-"),
            ("*", ""),
            ("a?c", "abc"),
            ("*b*d", "abcbd"),
            ("**", "x"),
            ("default", "default"),
        ] {
            assert!(
                matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
        for (pattern, text) in [
            ("batch-*", "batch"),
            ("a?c", "ac"),
            ("", "x"),
            ("*b*d", "abcbde"),
            ("default", "defaults"),
            ("?", ""),
        ] {
            assert!(
                !matches(pattern.as_bytes(), text.as_bytes()),
                "{pattern} {text}"
            );
        }
    }
}
