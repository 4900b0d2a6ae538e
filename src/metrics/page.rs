//! A page of metrics: what is shown, and its text in both formats.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::cells::{Histogram, Labelled, Number, Spread};

/// What every name begins with.
const PREFIX: &str = "streamfleet";

/// The text of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Of the answer.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Names and values of labels.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Families of metrics, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Page {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    samples: Vec<(Vec<(&'static str, String)>, Value)>,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Spread(Spread),
    /// Only its labels.
    Info,
}

impl Page {
    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        kind: MetricType,
    ) -> &mut Family {
        let known = self.families.iter().position(|family| family.name == name);
        let at = known.unwrap_or_else(|| {
            self.families.push(Family {
                name,
                help,
                unit,
                kind,
                samples: Vec::new(),
            });
            self.families.len() - 1
        });
        &mut self.families[at]
    }

    /// A number that only grows; `_total` is added to its name.
    pub(crate) fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: u64,
    ) {
        let family = self.family(name, help, None, MetricType::Counter);
        family.add(labels, Value::Counter(value));
    }

    /// The same for each value of a label.
    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counted: &Labelled<N>,
    ) {
        for (value, count) in counted.counts() {
            self.counter(name, help, &[(label, value)], count);
        }
    }

    /// A number that goes up and down.
    pub(crate) fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let family = self.family(name, help, None, MetricType::Gauge);
        family.add(labels, Value::Gauge(value));
    }

    /// The same of a time; `_seconds` is added to its name.
    pub(crate) fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let family = self.family(name, help, Some(Unit::Seconds), MetricType::Gauge);
        family.add(labels, Value::Gauge(value));
    }

    /// One that is kept as a number.
    pub(super) fn number(&mut self, name: &'static str, help: &'static str, number: &Number) {
        self.gauge(name, help, &[], number.get() as f64);
    }

    /// How counts are spread.
    pub(super) fn sizes<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        histogram: &Histogram<N>,
    ) {
        let family = self.family(name, help, None, MetricType::Histogram);
        family.add(&[], Value::Spread(histogram.spread()));
    }

    /// How times are spread; `_seconds` is added to the name.
    pub(super) fn times<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        histogram: &Histogram<N>,
    ) {
        let family = self.family(name, help, Some(Unit::Seconds), MetricType::Histogram);
        family.add(labels, Value::Spread(histogram.spread()));
    }

    /// What does not change; `_info` is added to its name.
    pub(super) fn info(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>) {
        let family = self.family(name, help, None, MetricType::Info);
        family.add(labels, Value::Info);
    }

    /// The text; every sample gets the labels `of_all` too.
    pub(crate) fn text(self, of_all: Labels<'_>, format: Format) -> Result<String, fmt::Error> {
        let of_all = of_all.iter().map(|(name, value)| {
            let (name, value) = ((*name).to_owned(), (*value).to_owned());
            (name.into(), value.into())
        });
        let mut registry = Registry::with_prefix_and_labels(PREFIX, of_all);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
            Format::OpenMetrics => text::encode(&mut text, &registry)?,
        }
        Ok(text)
    }
}

impl Family {
    fn add(&mut self, labels: Labels<'_>, value: Value) {
        let owned = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        self.samples.push((owned.collect(), value));
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.families {
            let mut described = encoder.encode_descriptor(
                family.name,
                family.help,
                family.unit.as_ref(),
                family.kind,
            )?;
            for (labels, value) in &family.samples {
                if let Value::Info = value {
                    described.encode_info(labels)?;
                    continue;
                }
                let mut sample = described.encode_family(labels)?;
                match value {
                    Value::Counter(count) => {
                        sample.encode_counter::<NoLabelSet, _, u64>(count, None)?;
                    }
                    Value::Gauge(value) => sample.encode_gauge(value)?,
                    Value::Spread(Spread {
                        buckets,
                        sum,
                        count,
                    }) => sample.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?,
                    Value::Info => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        static TIMES: Histogram<1> = Histogram::of_times(&[1_000]);
        TIMES.observe(500, 1);
        TIMES.observe(2_000, 1);
        let mut page = Page::default();
        page.info("build", "What runs.", &[("version", "1")]);
        page.counter("events", "Events.", &[("reason", "a\"b\n")], 7);
        page.seconds("age", "Age.", &[], 0.5);
        page.times("work_duration", "Work.", &[], &TIMES);
        page
    }

    #[test]
    fn both_formats_say_the_same_in_their_own_words() {
        let text = page()
            .text(&[("subscriber", "s")], Format::Prometheus)
            .unwrap();
        let expected = r#"# HELP streamfleet_build_info What runs.
# TYPE streamfleet_build_info gauge
streamfleet_build_info{subscriber="s",version="1"} 1
# HELP streamfleet_events_total Events.
# TYPE streamfleet_events_total counter
streamfleet_events_total{subscriber="s",reason="a\"b\n"} 7
# HELP streamfleet_age_seconds Age.
# TYPE streamfleet_age_seconds gauge
streamfleet_age_seconds{subscriber="s"} 0.5
# HELP streamfleet_work_duration_seconds Work.
# TYPE streamfleet_work_duration_seconds histogram
streamfleet_work_duration_seconds_bucket{subscriber="s",le="0.001"} 1
streamfleet_work_duration_seconds_bucket{subscriber="s",le="+Inf"} 2
streamfleet_work_duration_seconds_sum{subscriber="s"} 0.0025
streamfleet_work_duration_seconds_count{subscriber="s"} 2
"#;
        assert_eq!(text, expected);
        let text = page().text(&[], Format::OpenMetrics).unwrap();
        assert!(
            text.contains("# UNIT streamfleet_age_seconds seconds\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE streamfleet_events counter\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
