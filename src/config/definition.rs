//! What a setting is: one definition from which everything else is made.
//!
//! A section is declared once, with [`section!`]: for each setting its name,
//! type, accepted values, default, documentation, and what a reload may do with
//! it. From that one place come the struct that the rest of Weir reads, its
//! rustdoc, the parser, the checks, `config/weir.toml` and
//! `docs/CONFIGURATION.md`. To add a setting, add a row to its section.

use toml::de::DeValue;

use super::kind::{Found, Kind, Sources};

/// What a reload may do with a changed setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The new value holds at once, for everything.
    Live,
    /// Connections opened from now on take the new value; others keep the old.
    NewConnections,
    /// Only a restart changes it.
    Restart,
}

impl Reload {
    /// In the words of the documentation.
    pub fn text(self) -> &'static str {
        match self {
            Reload::Live => "at once",
            Reload::NewConnections => "for new connections",
            Reload::Restart => "by a restart only",
        }
    }
}

/// What holds when the file does not name the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This value, as it would be written in the file.
    Value(&'static str),
    /// Nothing: the setting is optional and has no value.
    Nothing,
    /// There is none: the file has to name it.
    Required,
}

impl Fallback {
    /// `none` and `required` are the two words of a definition that are not values.
    pub(super) const fn new(text: &'static str) -> Fallback {
        match text.as_bytes() {
            b"none" => Fallback::Nothing,
            b"required" => Fallback::Required,
            _ => Fallback::Value(text),
        }
    }
}

/// Everything about one setting but how it is stored: what documentation needs.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The key in the file.
    pub name: &'static str,
    /// What it does and why its default is what it is; one entry per line.
    pub doc: &'static [&'static str],
    /// What holds when the file does not name it.
    pub fallback: Fallback,
    /// A value to show where there is no default; at most one.
    pub example: &'static [&'static str],
    /// What a reload may do with it.
    pub reload: Reload,
    /// What it accepts, as in "expected …".
    pub accepts: fn() -> String,
    /// Endings of the key under which it may be given: `""`, and for a password `"_env"`, `"_file"`.
    pub forms: fn() -> &'static [&'static str],
}

/// One setting of the section `S`.
pub struct Setting<S> {
    /// What documentation says about it.
    pub(super) facts: Facts,
    /// Reads a value as written and stores it; the error says what was expected and found.
    pub(super) set: fn(&mut S, &Found<'_>) -> Result<(), String>,
    /// Its value as it would be written, without quotes; a password is hidden.
    pub(super) show: fn(&S) -> String,
    /// What tells two of its values apart; not to be shown.
    pub(super) identity: fn(&S) -> Vec<u8>,
}

/// A struct declared by [`section!`].
pub trait Section: Default + 'static {
    /// What the section is for; one entry per line.
    const ABOUT: &'static [&'static str];
    /// Its settings, in the order of the reference.
    const SETTINGS: &'static [Setting<Self>];

    /// The settings' facts, without the type they are stored in.
    fn facts() -> Vec<Facts> {
        Self::SETTINGS.iter().map(|setting| setting.facts).collect()
    }
}

/// The value that a definition's own default text stands for.
///
/// # Panics
///
/// When the default is not a value that the setting accepts: a mistake in a
/// definition, found by the first test that builds a default.
pub(super) fn fallback<K: Kind>(kind: &K, name: &str, text: &'static str) -> K::Value {
    let Fallback::Value(text) = Fallback::new(text) else {
        return kind
            .absent()
            .unwrap_or_else(|| panic!("{name} can not be left without a value"));
    };
    let value = DeValue::parse(text).unwrap_or_else(|e| panic!("default of {name}: {e}"));
    let found = Found::new(value.get_ref(), "", Sources::none());
    kind.read(&found)
        .unwrap_or_else(|message| panic!("default of {name}: {message}"))
}

/// Declares a section of the configuration.
///
/// Each row reads: documentation, name, type, what it accepts, its default as it
/// would be written in the file (or `none`, or `required`, with an example), what a
/// reload may do.
/// Fields after `with` are part of the struct but not settings of this section.
macro_rules! section {
    (
        $(#[doc = $about:expr])+
        pub struct $section:ident {
            $(
                $(#[doc = $doc:expr])+
                $field:ident: $type:ty = $kind:expr, default $default:tt, $(example $example:tt,)? changes $reload:ident;
            )+
        }
        $(with {
            $( $(#[doc = $part_doc:expr])+ $part:ident: $part_type:ty; )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $section {
            $( $( $(#[doc = $part_doc])+ pub $part: $part_type, )+ )?
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $section {
            fn default() -> Self {
                use $crate::config::definition::fallback;
                $section {
                    $( $( $part: Default::default(), )+ )?
                    $( $field: fallback(&$kind, stringify!($field), stringify!($default)), )+
                }
            }
        }

        impl $crate::config::definition::Section for $section {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const SETTINGS: &'static [$crate::config::definition::Setting<Self>] = &[$(
                $crate::config::definition::Setting {
                    facts: $crate::config::definition::Facts {
                        name: stringify!($field),
                        doc: &[$($doc),+],
                        fallback: $crate::config::definition::Fallback::new(stringify!($default)),
                        example: &[$(stringify!($example))?],
                        reload: $crate::config::definition::Reload::$reload,
                        accepts: || $crate::config::kind::accepts::<$type>(&$kind),
                        forms: || $crate::config::kind::forms::<$type>(&$kind),
                    },
                    set: |section, found| {
                        section.$field = $crate::config::kind::Kind::read(&$kind, found)?;
                        Ok(())
                    },
                    show: |section| $crate::config::kind::Kind::show(&$kind, &section.$field),
                    identity: |section| $crate::config::kind::Kind::identity(&$kind, &section.$field),
                },
            )+];
        }
    };
}
pub(super) use section;
