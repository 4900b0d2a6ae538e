//! Failpoints: places at which the fault suite lets a process die or freeze, one for each step
//! between two things that must not come apart.
//!
//! They exist only under the feature `failpoints`, which the package turns on for its own tests
//! (see `dev-dependencies`): what is installed contains none. `STREAMFLEET_FAILPOINT` arms one:
//! `worker.committed 3 abort` ends the process, as `kill -9` would, when it passes that point for
//! the third time; `freeze` stops the thread for good instead.

/// Passes a failpoint; nothing at all without the feature.
macro_rules! failpoint {
    ($point:literal) => {{
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($point);
    }};
}
pub(crate) use failpoint;

/// Every failpoint, in the order of an event's life.
#[cfg(feature = "failpoints")]
pub const POINTS: &[&str] = &[
    "router.joined",
    "router.read",
    "router.reclaimed",
    "router.decided",
    "router.checked",
    "router.routed",
    "router.due",
    "router.delivered",
    "router.trimming",
    "router.trimmed",
    "router.leaving",
    "worker.joined",
    "worker.announced",
    "worker.read",
    "worker.reclaimed",
    "worker.marked",
    "worker.handling",
    "worker.handled",
    "worker.committed",
    "worker.acknowledging",
    "worker.acknowledged",
    "worker.parking",
    "worker.parked",
    "worker.burying",
    "worker.buried",
    "worker.renewing",
    "worker.renewed",
    "worker.releasing",
    "worker.released",
    "worker.leaving",
    "rebuild.begun",
    "rebuild.restored",
    "rebuild.gathered",
    "rebuild.switched",
];

#[cfg(feature = "failpoints")]
#[derive(Clone, Copy)]
enum Action {
    Abort,
    Freeze,
}

/// Comes by `point`; does what the environment asks for there.
#[cfg(feature = "failpoints")]
pub(crate) fn pass(point: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    type Armed = (String, AtomicU64, Action);
    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let setting = crate::environment::variable("STREAMFLEET_FAILPOINT")?;
        let setting = setting.to_string_lossy();
        let armed = parse(&setting);
        assert!(
            armed.is_some(),
            "STREAMFLEET_FAILPOINT={setting:?}: want `<point> <n-th time> abort|freeze`"
        );
        armed.map(|(point, nth, action)| (point.to_owned(), AtomicU64::new(nth), action))
    });

    debug_assert!(POINTS.contains(&point), "{point} is not listed");
    let Some((armed, left, action)) = &*ARMED else {
        return;
    };
    if armed != point || left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    match action {
        Action::Abort => std::process::abort(),
        Action::Freeze => {
            eprintln!("frozen at {point}");
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(feature = "failpoints")]
fn parse(setting: &str) -> Option<(&str, u64, Action)> {
    let mut words = setting.split(' ');
    let point = words.next().filter(|point| POINTS.contains(point))?;
    let nth = words.next()?.parse().ok().filter(|&nth| nth > 0)?;
    let action = match words.next()? {
        "abort" => Action::Abort,
        "freeze" => Action::Freeze,
        _ => return None,
    };
    Some((point, nth, action))
}
