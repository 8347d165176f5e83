//! The exposition read back by a strict parser of the format.

use super::*;
use crate::metrics::Histogram;
use proptest::prelude::*;

/// One sample as the parser understood it.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// Parses `text`, refusing all that the format does not allow: unknown
/// escapes, a family in two pieces, a sample outside its family, a series
/// twice, a last line without an end.
fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let body = text.strip_suffix('\n').ok_or("the last line has no end")?;
    let mut samples = Vec::new();
    let mut families = HashSet::new();
    let mut series = HashSet::new();
    let mut helped = "";
    let mut family = ("", "");
    for line in body.split('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').ok_or(format!("no help: {line:?}"))?.0;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').ok_or(format!("no type: {line:?}"))?;
            if family.0 != helped || !families.insert(family.0) {
                return Err(format!("family out of order or twice: {line:?}"));
            }
            if !["counter", "gauge", "histogram"].contains(&family.1) {
                return Err(format!("unknown type: {line:?}"));
            }
        } else {
            let sample = parse_sample(line).map_err(|error| format!("{error}: {line:?}"))?;
            let suffixes: &[&str] = match family.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            if !suffixes
                .iter()
                .any(|suffix| sample.name == format!("{}{suffix}", family.0))
            {
                return Err(format!("sample outside its family: {line:?}"));
            }
            if !series.insert(format!("{}{:?}", sample.name, sample.labels)) {
                return Err(format!("series twice: {line:?}"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn parse_sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("bad metric name");
    }
    let mut labels = Vec::new();
    if rest.starts_with('{') {
        while !rest.starts_with('}') {
            let (label, after) = rest[1..].split_once("=\"").ok_or("bad label")?;
            if !is_name(label) {
                return Err("bad label name");
            }
            let (value, after) = parse_quoted(after)?;
            labels.push((label.to_owned(), value));
            if !after.starts_with([',', '}']) {
                return Err("neither another label nor the end");
            }
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = match rest.strip_prefix(' ').ok_or("no space before the value")? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            number.parse().map_err(|_| "bad number")?
        }
        _ => return Err("bad number"),
    };
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The text up to its closing quote, unescaped, and what follows the quote.
fn parse_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                _ => return Err("unknown escape"),
            }),
            other => value.push(other),
        }
    }
    Err("no closing quote")
}

#[test]
fn a_family_is_written_as_the_format_says() {
    let mut out = Exposition::new();
    out.family("weir_test_total", "Things \\ with\nlines.", Kind::Counter);
    out.sample(&[], 7_u64);
    out.sample(&[("route", "a\"b\\c\nd"), ("reason", "idle")], 8_u64);
    out.family("weir_level", "A \"level\".", Kind::Gauge);
    out.sample(&[], -3_i64);
    assert_eq!(
        out.finish(),
        "# HELP weir_test_total Things \\\\ with\\nlines.\n\
         # TYPE weir_test_total counter\n\
         weir_test_total 7\n\
         weir_test_total{route=\"a\\\"b\\\\c\\nd\",reason=\"idle\"} 8\n\
         # HELP weir_level A \"level\".\n\
         # TYPE weir_level gauge\n\
         weir_level -3\n\
         # HELP weir_exposition_series_dropped Series left out of this answer because there were too many.\n\
         # TYPE weir_exposition_series_dropped gauge\n\
         weir_exposition_series_dropped 0\n"
    );
}

#[test]
fn numbers_that_are_none_have_the_formats_names() {
    let mut out = Exposition::new();
    out.family("weir_odd", "Odd.", Kind::Gauge);
    for (name, value) in [
        ("inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("nan", f64::NAN),
    ] {
        out.sample(&[("which", name)], value);
    }
    let text = out.finish();
    assert!(text.contains("{which=\"inf\"} +Inf\n"));
    assert!(text.contains("{which=\"-inf\"} -Inf\n"));
    assert!(text.contains("{which=\"nan\"} NaN\n"));
    parse(&text).unwrap();
}

#[test]
fn a_histograms_buckets_rise_and_end_at_its_count() {
    let histogram = Histogram::default();
    [0, 5, 90, 1_500, 2_000_000, 1 << 50]
        .iter()
        .for_each(|micros| histogram.record(*micros));
    let mut out = Exposition::new();
    out.family("weir_time_seconds", "Time.", Kind::Histogram);
    out.histogram(&[("route", "a")], &histogram.snapshot());
    out.histogram(&[], &histogram.snapshot());
    let samples = parse(&out.finish()).unwrap();

    let of = |sample: &&Sample| sample.labels.iter().any(|(name, _)| name == "route");
    let buckets: Vec<_> = samples
        .iter()
        .filter(of)
        .filter(|sample| sample.name.ends_with("_bucket"))
        .collect();
    let bound = |sample: &Sample| match sample.labels.last().unwrap().1.as_str() {
        "+Inf" => f64::INFINITY,
        number => number.parse().unwrap(),
    };
    assert!(
        buckets
            .windows(2)
            .all(|pair| bound(pair[0]) < bound(pair[1]))
    );
    assert!(
        buckets
            .windows(2)
            .all(|pair| pair[0].value <= pair[1].value)
    );
    assert_eq!(buckets.first().map(|sample| sample.value), Some(2.0));
    assert_eq!(
        buckets.last().map(|sample| (bound(sample), sample.value)),
        Some((f64::INFINITY, 6.0))
    );
    let count = samples
        .iter()
        .filter(of)
        .find(|sample| sample.name.ends_with("_count"))
        .unwrap();
    assert_eq!(count.value, 6.0);
}

#[test]
fn beyond_the_bound_series_are_left_out_and_counted() {
    let mut out = Exposition::with_series_max(3);
    out.family("weir_level", "Level.", Kind::Gauge);
    for node in ["a", "b", "c", "d", "e"] {
        out.sample(&[("node", node)], 1_u64);
    }
    out.family("weir_time_seconds", "Time.", Kind::Histogram);
    out.histogram(&[], &HistogramSnapshot::default());
    let samples = parse(&out.finish()).unwrap();
    assert_eq!(samples.len(), 4);
    let dropped = 2 + HistogramSnapshot::cumulative_len() + 3;
    assert_eq!(samples[3].value, dropped as f64);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "begun twice")]
fn a_family_written_twice_is_a_mistake_in_the_code() {
    let mut out = Exposition::new();
    out.family("weir_level", "Level.", Kind::Gauge);
    out.family("weir_level", "Level.", Kind::Gauge);
}

#[test]
fn the_parser_refuses_what_the_format_forbids() {
    let head = "# HELP a b\n# TYPE a gauge\n";
    for bad in [
        "a{x=\"\"\"} 1\n",
        "a{x=\"\\t\"} 1\n",
        "a 1",
        "a{x=\"1\" 1\n",
        "b 1\n",
        "a 1\na 1\n",
        "a inf\n",
    ] {
        assert!(parse(&format!("{head}{bad}")).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_label_value_comes_back_as_it_was(
        values in prop::collection::vec((any::<String>(), "[\\\\\"\n\r{}= ,a]{0,8}", any::<i64>()), 0..8)
    ) {
        let mut out = Exposition::new();
        out.family("weir_level", "Level.", Kind::Gauge);
        let numbers: Vec<_> = (0..values.len()).map(|number| number.to_string()).collect();
        for ((any, nasty, value), number) in values.iter().zip(&numbers) {
            out.sample(&[("number", number), ("any", any), ("nasty", nasty)], *value);
        }
        let samples = parse(&out.finish()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(samples.len(), values.len() + 1);
        for ((any, nasty, value), sample) in values.iter().zip(&samples) {
            prop_assert_eq!(&sample.labels[1].1, any);
            prop_assert_eq!(&sample.labels[2].1, nasty);
            prop_assert_eq!(sample.value, *value as f64);
        }
    }

    #[test]
    fn any_number_is_readable(value in any::<f64>()) {
        let mut out = Exposition::new();
        out.family("weir_level", "Level.", Kind::Gauge);
        out.sample(&[], value);
        let read = parse(&out.finish()).map_err(TestCaseError::fail)?[0].value;
        prop_assert!(read == value || read.is_nan() && value.is_nan());
    }
}
