//! Charts: bars of the throughput and the curve of the latencies, as SVG for a page and as text
//! for a terminal. Written by hand: two shapes need no library.

use std::fmt::Write as _;

use super::machine::Machine;
use super::report::{Figure, Outcome};
use super::show::{name, number};
use super::stage::{Sample, Side, Stage};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
/// Where bars begin, and the widest that they get.
const BARS_AT: f64 = 190.0;
const BARS: f64 = 520.0;
const BAR: f64 = 14.0;
const GROUP: f64 = 44.0;
/// The plot of latencies.
const PLOT_AT: f64 = 70.0;
const PLOT: (f64, f64) = (740.0, 240.0);
const OURS: &str = "#0969da";
const FLOOR: &str = "#8c959f";
/// The percentiles that the axis names.
const NINES: [(f64, &str); 6] = [
    (0.0, "0"),
    (50.0, "50"),
    (90.0, "90"),
    (99.0, "99"),
    (99.9, "99.9"),
    (99.99, "99.99"),
];
/// The widest bar in a terminal.
const COLUMNS: f64 = 48.0;

/// Throughput by job: name, ours, the floor's.
fn speeds(outcomes: &[Outcome]) -> Vec<(String, f64, f64)> {
    let speed = |outcome: &Outcome| {
        let compared = outcome.get(Figure::EventsPerSecond)?;
        let of = |spread: Option<super::report::Spread>| spread.map_or(0.0, |s| s.median);
        Some((name(outcome), of(compared.ours), of(compared.floor)))
    };
    outcomes.iter().filter_map(speed).collect()
}

fn most(speeds: &[(String, f64, f64)]) -> f64 {
    let all = speeds.iter().map(|(_, ours, floor)| ours.max(*floor));
    all.fold(1.0, f64::max)
}

/// Bars for a terminal.
pub(super) fn bars(outcomes: &[Outcome]) -> String {
    let speeds = speeds(outcomes);
    let (most, mut text) = (most(&speeds), String::new());
    let width = speeds.iter().map(|s| s.0.len()).max().unwrap_or(0);
    for (name, ours, floor) in &speeds {
        for (label, side, value) in [(name.as_str(), "ours ", ours), ("", "floor", floor)] {
            let bar = "█".repeat((value / most * COLUMNS).round().max(1.0) as usize);
            let _ = writeln!(text, "{label:<width$}  {side}  {bar} {}", number(*value));
        }
    }
    text
}

/// Everything that can be drawn, as an SVG file.
pub(super) fn svg(machine: &Machine, outcomes: &[Outcome], samples: &[Sample]) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    let line = |body: &mut String, y: f64, class: &str, content: &str| {
        text(body, MARGIN, y, "start", class, content);
    };
    y += 10.0;
    let title = format!("streamfleet {} on {}", machine.version, machine.server);
    line(&mut body, y, "title", &title);
    y += 20.0;
    let system = format!(
        "{} × {}, Linux {}, {}",
        machine.cores, machine.cpu, machine.kernel, machine.persistence
    );
    line(&mut body, y, "note", &system);
    y += 30.0;

    let speeds = speeds(outcomes);
    if !speeds.is_empty() {
        line(&mut body, y, "head", "Events per second");
        legend(&mut body, y);
        y = draw_bars(&mut body, y + 14.0, &speeds);
    }
    let curves = curves(samples);
    if !curves.is_empty() {
        y += 20.0;
        let head =
            "Latency at a fixed rate, from when an event was due to the start of its handler (ms)";
        line(&mut body, y, "head", head);
        y = draw_curves(&mut body, y + 20.0, &curves);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{h:.0}\" viewBox=\"0 0 {WIDTH} {h:.0}\">\n\
         <style>text {{ font: 12px sans-serif; fill: #24292f }} .title {{ font-size: 16px; font-weight: bold }} \
         .head {{ font-weight: bold }} .note {{ fill: #57606a }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        h = y + MARGIN
    )
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, class: &str, content: &str) {
    let content = escape(content);
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{content}</text>"
    );
}

fn rect(body: &mut String, x: f64, y: f64, width: f64, height: f64, fill: &str) {
    let _ = writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    );
}

fn legend(body: &mut String, y: f64) {
    for (x, fill, name) in [
        (WIDTH - 150.0, OURS, "ours"),
        (WIDTH - 80.0, FLOOR, "floor"),
    ] {
        rect(body, x, y - 10.0, 12.0, 12.0, fill);
        text(body, x + 18.0, y, "start", "note", name);
    }
}

fn draw_bars(body: &mut String, mut y: f64, speeds: &[(String, f64, f64)]) -> f64 {
    let most = most(speeds);
    for (name, ours, floor) in speeds {
        text(body, BARS_AT - 10.0, y + BAR + 4.0, "end", "", name);
        for (at, value, fill) in [(y, *ours, OURS), (y + BAR + 2.0, *floor, FLOOR)] {
            let width = (value / most * BARS).max(1.0);
            rect(body, BARS_AT, at, width, BAR, fill);
            let ratio = match fill == OURS && *floor > 0.0 {
                true => format!("{}  ({:.2} of the floor)", number(value), ours / floor),
                false => number(value),
            };
            text(
                body,
                BARS_AT + width + 6.0,
                at + BAR - 3.0,
                "start",
                "note",
                &ratio,
            );
        }
        y += GROUP;
    }
    y
}

/// The curve of the first sample of either side.
fn curves(samples: &[Sample]) -> Vec<(Side, &[(f64, f64)])> {
    let of = |side: Side| {
        let mine = |s: &&Sample| s.stage == Stage::Latency && s.side == side;
        let latency = samples.iter().find(mine)?.latency.as_ref()?;
        Some((side, latency.curve.as_slice()))
    };
    [Side::Ours, Side::Floor]
        .into_iter()
        .filter_map(of)
        .collect()
}

fn draw_curves(body: &mut String, top: f64, curves: &[(Side, &[(f64, f64)])]) -> f64 {
    let (width, height) = PLOT;
    let bottom = top + height;
    // Every nine is as wide as the one before.
    let x = |percentile: f64| {
        let nines = (-(1.0 - percentile / 100.0).log10()).min(4.5);
        PLOT_AT + nines / 4.5 * width
    };
    let all = || {
        curves
            .iter()
            .flat_map(|(_, curve)| curve.iter().map(|(_, ms)| ms.max(0.001)))
    };
    let low = all().fold(f64::INFINITY, f64::min).log10().floor();
    let high = all().fold(0.001, f64::max).log10().ceil().max(low + 1.0);
    let y = |ms: f64| bottom - (ms.max(0.001).log10() - low) / (high - low) * height;
    for exponent in low as i32..=high as i32 {
        let (value, at) = (10_f64.powi(exponent), y(10_f64.powi(exponent)));
        rule(body, (PLOT_AT, at), (PLOT_AT + width, at));
        text(
            body,
            PLOT_AT - 8.0,
            at + 4.0,
            "end",
            "note",
            &format!("{value}"),
        );
    }
    for (percentile, name) in NINES {
        let at = x(percentile);
        rule(body, (at, top), (at, bottom));
        text(body, at, bottom + 18.0, "middle", "note", name);
    }
    text(
        body,
        PLOT_AT + width,
        bottom + 36.0,
        "end",
        "note",
        "percentile",
    );
    for (side, curve) in curves {
        let shown = curve
            .iter()
            .filter(|(percentile, _)| x(*percentile) < PLOT_AT + width);
        let points: Vec<_> = shown
            .map(|(p, ms)| format!("{:.1},{:.1}", x(*p), y(*ms)))
            .collect();
        let stroke = if *side == Side::Ours { OURS } else { FLOOR };
        let _ = writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }
    bottom + 42.0
}

fn rule(body: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        body,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#d0d7de\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::bench::latency::Latency;
    use crate::operator::bench::redis_figures::RedisCost;
    use crate::operator::bench::stage::Job;

    fn sample(stage: Stage, side: Side, seconds: f64) -> Sample {
        Sample {
            stage,
            handler: None,
            side,
            events: 1_000,
            seconds,
            redis: RedisCost::default(),
            processes: Vec::new(),
            latency: (stage == Stage::Latency).then(|| Latency {
                count: 2,
                mean: 1.0,
                p50: 1.0,
                p90: 1.0,
                p99: 1.0,
                p999: 1.0,
                max: 10.0,
                curve: vec![(0.0, 0.0), (50.0, 1.0), (100.0, 10.0)],
            }),
            publish_latency: None,
        }
    }

    /// Every element is closed, and what is text is escaped.
    fn is_well_formed(svg: &str) -> bool {
        let (mut open, mut rest) = (Vec::new(), svg);
        while let Some((before, after)) = rest.split_once('<') {
            let Some((tag, after)) = after.split_once('>') else {
                return false;
            };
            let entities = ["&amp;", "&lt;", "&gt;"];
            let text = entities
                .iter()
                .fold(before.to_owned(), |text, e| text.replace(e, ""));
            if text.contains(['>', '&']) {
                return false;
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            match tag.strip_prefix('/') {
                Some(name) if open.pop() != Some(name) => return false,
                None if !tag.ends_with('/') => open.push(name),
                _ => {}
            }
            rest = after;
        }
        open.is_empty() && rest.trim().is_empty()
    }

    #[test]
    fn what_is_drawn_is_well_formed_whatever_the_figures() {
        let machine = Machine {
            version: "1",
            debug_build: false,
            date: jiff::Timestamp::UNIX_EPOCH,
            cpu: "a <b> & c".to_owned(),
            cores: 2,
            kernel: "6".to_owned(),
            server: "Redis 7".to_owned(),
            persistence: "none".to_owned(),
        };
        let samples = [
            sample(Stage::Route, Side::Ours, 0.5),
            sample(Stage::Route, Side::Floor, 0.1),
            sample(Stage::Latency, Side::Ours, 1.0),
        ];
        let jobs = [Stage::Route, Stage::Latency].map(|stage| Job { stage, kind: None });
        let outcomes = jobs.map(|job| Outcome::of(job, &samples));
        let drawn = svg(&machine, &outcomes, &samples);
        assert!(is_well_formed(&drawn), "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        assert!(drawn.contains("0.20 of the floor") && drawn.contains("<polyline"));
        assert!(is_well_formed(&svg(&machine, &[], &[])));
        assert!(!is_well_formed("<a><b></a></b>") && !is_well_formed("<a>&</a>"));
        assert_eq!(bars(&outcomes).lines().count(), 2);
        assert!(bars(&[]).is_empty());
    }
}
