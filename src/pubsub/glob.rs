//! Patterns as Redis matches them, for counting whom a message would have reached.

/// Whether `text` matches `pattern`, case by case as Redis's `util.c:stringmatchlen` does.
///
/// `steps` is how many comparisons it may still take; what needs more does not match and
/// leaves 0. Even without that bound the time is at most the product of the lengths:
/// only the last `*` is ever tried again.
pub fn matches(pattern: &[u8], text: &[u8], steps: &mut usize) -> bool {
    if text.is_empty() {
        // To Redis nothing is matched by nothing, and not by a star.
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Behind the last star, and where the text was when it was met.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let Some(left) = steps.checked_sub(1) else {
            return false;
        };
        *steps = left;
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        let next = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(&pattern[p..], byte, steps),
            _ => None,
        };
        match (next, star) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            (None, Some((behind, at))) if at < text.len() => {
                // The star takes one more byte.
                star = Some((behind, at + 1));
                (p, t) = (behind, at + 1);
            }
            (None, _) => return false,
        }
    }
}

/// Whether the element at the front of the pattern matches this byte, and how long the
/// element is.
fn one(pattern: &[u8], byte: u8, steps: &mut usize) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (found, width) = in_class(class, byte);
            *steps = steps.saturating_sub(width);
            found.then_some(1 + width)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// Reads `^abc-z\]]` up to its bracket, or to the end if there is none.
fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    while let Some(&first) = class.get(at) {
        match &class[at..] {
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [_, b'-', last, ..] => {
                found |= (first.min(*last)..=first.max(*last)).contains(&byte);
                at += 3;
            }
            _ => {
                found |= first == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), &mut 1_000_000)
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("*", "anything", true),
            ("**", "a", true),
            ("a*", "abc", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("?", "a", true),
            ("?", "", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("[\\]]", "]", true),
            ("[a", "a", true),
            ("[a", "b", false),
            ("[^", "b", true),
            ("[a-", "-", true),
            ("news.*", "news.art", true),
            ("news.*", "New.art", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_meant_to_be_slow_is_not() {
        let pattern = "a*".repeat(50) + "b";
        let text = "a".repeat(5_000);
        let mut steps = pattern.len() * text.len();
        assert!(!matches(pattern.as_bytes(), text.as_bytes(), &mut steps));
        assert!(steps > 0, "more than the product of the lengths");
        let mut steps = 10;
        assert!(!matches(b"*aaaaaaaaaaaab", text.as_bytes(), &mut steps));
        assert_eq!(steps, 0);
    }
}
