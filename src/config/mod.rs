//! Settings as plain, validated data.
