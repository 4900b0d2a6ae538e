//! The report for people: aligned tables, and what was measured on what.

use std::fmt::Write as _;

use super::super::text::{Paint, Tone, table};
use super::Findings;
use super::chart::bars;
use super::machine::Machine;
use super::place::Memory;
use super::report::{Compared, Figure, Outcome, Spread};
use super::stage::{Scale, Side, Stage};
use super::targets::{RoleFigures, Target, Wanted};

/// Of less than this, in µs per event, no line is shown.
const LEAST_USEC: f64 = 0.02;

/// Everything, as text.
pub(super) fn report(paint: Paint, findings: &Findings<'_>) -> String {
    let Findings {
        machine,
        parameters,
        outcomes,
        ..
    } = *findings;
    let mut text = head(machine, parameters);
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            let _ = write!(text, "\n{}\n{body}", paint.tone(title, Tone::Strong));
        }
    };
    section("Events per second", bars(outcomes));
    section(
        "The same, and CPU time per event in µs (RATIO: ours by the floor's)",
        throughput(paint, outcomes),
    );
    section(
        "Latency in ms, from when an event was due to the start of its handler",
        latency(paint, outcomes),
    );
    section("Processes", processes(paint, findings.roles));
    if let Some(memory) = findings.memory {
        section("Memory of Redis", memory_table(paint, memory));
    }
    section(
        "Redis commands, calls and µs per event (those of a script or transaction count there too)",
        commands(paint, outcomes),
    );
    section("Targets", targets_table(paint, findings.targets));
    text
}

fn head(machine: &Machine, scale: &Scale) -> String {
    let mut text = format!(
        "streamfleet {}, {} ({}), {} × {}, Linux {}\n{} events of {} bytes, {} types, {} subscribers × {} workers × {} at a time on {} threads, {} routers\n",
        machine.version,
        machine.server,
        machine.persistence,
        machine.cores,
        machine.cpu,
        machine.kernel,
        scale.events,
        scale.event_bytes,
        scale.types,
        scale.subscribers,
        scale.workers,
        scale.concurrency,
        scale.threads,
        scale.routers,
    );
    if machine.debug_build {
        text += "A debug build: its figures say nothing about speed. Build with --release.\n";
    }
    text
}

pub(super) fn name(outcome: &Outcome) -> String {
    let stage = outcome.stage.as_str();
    match outcome.handler {
        Some(kind) => format!("{stage}, {}", kind.as_str()),
        None => stage.to_owned(),
    }
}

pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
                    text.push(' ');
                }
                text.push(digit);
            }
            text
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(spread: Option<Spread>) -> String {
    spread.map_or("-".to_owned(), |s| number(s.median))
}

fn three(compared: Option<&Compared>) -> [String; 3] {
    match compared {
        Some(c) => [
            median(c.ours),
            median(c.floor),
            c.ratio.map_or("-".into(), |r| format!("{r:.2}")),
        ],
        None => ["-", "-", "-"].map(str::to_owned),
    }
}

/// How far the repetitions were apart, by the median: of either side the larger.
fn apart(compared: Option<&Compared>) -> String {
    let spread = |s: Option<Spread>| s.map(|s| (s.max - s.min) / s.median);
    let both = compared.map(|c| [spread(c.ours), spread(c.floor)]);
    let most = both.into_iter().flatten().flatten().reduce(f64::max);
    most.map_or("-".to_owned(), |m| format!("{:.0} %", m * 100.0))
}

fn throughput(paint: Paint, outcomes: &[Outcome]) -> String {
    let mut rows = table(&[
        "STAGE",
        ">EVENTS/S",
        ">FLOOR",
        ">RATIO",
        ">SPREAD",
        ">REDIS µs",
        ">FLOOR",
        ">RATIO",
        ">CLIENTS µs",
        ">FLOOR",
        ">RATIO",
        ">BYTES",
        ">FLOOR",
    ]);
    for outcome in outcomes {
        let speed = outcome.get(Figure::EventsPerSecond);
        let [ours, floor, ratio] = three(speed);
        let mut row = vec![name(outcome), ours, floor, ratio, apart(speed)];
        row.extend(three(outcome.get(Figure::RedisUsPerEvent)));
        row.extend(three(outcome.get(Figure::ClientUsPerEvent)));
        row.extend(
            three(outcome.get(Figure::RedisBytesPerEvent))
                .into_iter()
                .take(2),
        );
        rows.add_row(row);
    }
    paint.table(&rows, &[])
}

fn latency(paint: Paint, outcomes: &[Outcome]) -> String {
    use Figure::{LatencyMaxMs, LatencyP50Ms, LatencyP90Ms, LatencyP99Ms, LatencyP999Ms};
    let fresh: Vec<_> = outcomes
        .iter()
        .filter(|o| o.stage.handles_fresh())
        .collect();
    if fresh.is_empty() {
        return String::new();
    }
    let mut rows = table(&["STAGE", "", ">P50", ">P90", ">P99", ">P99.9", ">MAX"]);
    for outcome in fresh {
        let get = |figure| outcome.get(figure).copied();
        let figures = [
            LatencyP50Ms,
            LatencyP90Ms,
            LatencyP99Ms,
            LatencyP999Ms,
            LatencyMaxMs,
        ]
        .map(get);
        let line = |side: &str, cells: [String; 5]| {
            [name(outcome), side.to_owned()].into_iter().chain(cells)
        };
        rows.add_row(line(
            "ours",
            figures.map(|c| median(c.and_then(|c| c.ours))),
        ));
        rows.add_row(line(
            "floor",
            figures.map(|c| median(c.and_then(|c| c.floor))),
        ));
        if outcome.stage == Stage::Latency {
            let answered = |figure| median(get(figure).and_then(|c| c.ours));
            let (p50, p99) = (
                answered(Figure::PublishP50Ms),
                answered(Figure::PublishP99Ms),
            );
            let cells = [p50, "-".into(), p99, "-".into(), "-".into()];
            rows.add_row(line("XADD answered", cells));
        }
    }
    paint.table(&rows, &[])
}

fn processes(paint: Paint, roles: &[RoleFigures]) -> String {
    if roles.is_empty() {
        return String::new();
    }
    let mut rows = table(&[
        "",
        "",
        ">READY ms",
        ">AT MOST",
        ">RSS MB",
        ">PEAK MB",
        ">AT MOST",
    ]);
    for role in roles {
        let side = if role.side == Side::Ours {
            "ours"
        } else {
            "floor"
        };
        let figures = [
            role.ready_ms.median,
            role.ready_ms.max,
            role.rss_mb.median,
            role.peak_rss_mb.median,
            role.peak_rss_mb.max,
        ];
        let names = [role.role, side].map(str::to_owned);
        rows.add_row(names.into_iter().chain(figures.map(number)));
    }
    paint.table(&rows, &[])
}

fn memory_table(paint: Paint, memory: &Memory) -> String {
    let mut rows = table(&["", ">BYTES"]);
    for (what, bytes) in [
        ("an event in the inbox", memory.inbox_entry),
        ("an event in its domain stream", memory.stream_entry),
        ("a pending delivery", memory.pending_entry),
    ] {
        rows.add_row([what.to_owned(), number(bytes)]);
    }
    paint.table(&rows, &[])
}

fn commands(paint: Paint, outcomes: &[Outcome]) -> String {
    let mut rows = table(&[
        "STAGE",
        "COMMAND",
        ">CALLS",
        ">µs",
        ">FLOOR CALLS",
        ">FLOOR µs",
    ]);
    for outcome in outcomes {
        let mut lines: Vec<_> = outcome.commands.iter().collect();
        lines.retain(|(_, [ours, floor])| ours.usec.max(floor.usec) >= LEAST_USEC);
        let most = |per: &[super::report::PerEvent; 2]| per[0].usec.max(per[1].usec);
        lines.sort_by(|a, b| most(b.1).total_cmp(&most(a.1)));
        for (command, [ours, floor]) in lines {
            let cells = [ours.calls, ours.usec, floor.calls, floor.usec];
            let cells = cells.map(|v| {
                if v == 0.0 {
                    "-".to_owned()
                } else {
                    format!("{v:.3}")
                }
            });
            rows.add_row(
                [name(outcome), command.to_uppercase()]
                    .into_iter()
                    .chain(cells),
            );
        }
    }
    paint.table(&rows, &[])
}

fn targets_table(paint: Paint, targets: &[Target]) -> String {
    if targets.is_empty() {
        return String::new();
    }
    let mut rows = table(&["", ">IS", ">TARGET", ""]);
    for target in targets {
        let wanted = match target.wanted {
            Some(Wanted::AtLeast(bound)) => format!("≥ {bound} {}", target.unit),
            Some(Wanted::AtMost(bound)) => format!("≤ {bound} {}", target.unit),
            None => "-".to_owned(),
        };
        let met = match target.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let value = format!("{} {}", number(target.value), target.unit);
        rows.add_row([target.name, &value, &wanted, met]);
    }
    let missed = |t: &Target| (t.met == Some(false)).then_some(Tone::Notice);
    let tones: Vec<_> = targets.iter().map(missed).collect();
    paint.table(&rows, &tones)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_groups() {
        let cases = [
            (0.034, "0.03"),
            (1.0, "1.00"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.0, "1 234 567"),
            (-1_000.0, "-1 000"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
