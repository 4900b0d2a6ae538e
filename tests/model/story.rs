//! Steps and paths in words.

use std::fmt;

use stateright::Path;

use super::process::Outcome;
use super::scripts::{Bare, Call};
use super::store::{Consumer, Owner, Queue};
use super::system::{Action, Fate, State};

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox => f.write_str("inbox"),
            Self::Domain(subscriber) => write!(f, "domain stream (subscriber {subscriber})"),
            Self::Redrive(subscriber) => write!(f, "redrive:{subscriber}"),
        }
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}.{}", self.name, self.life)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "",
            Self::AnswerLost => "; the answer is lost",
            Self::Late => "; given up as unanswered, it is still on its way",
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark { starts } => write!(f, "mark as started ({starts})"),
            Self::Ack => f.write_str("acknowledge"),
            Self::Commit { .. } => f.write_str("commit"),
            Self::Park(park) if park.to == Owner::Released => f.write_str("release"),
            Self::Park(park) => match park.failures {
                Some(n) => write!(f, "retry later, {n} failed attempts recorded"),
                None => f.write_str("retry later, nothing recorded"),
            },
            Self::DeadLetter(reason) => write!(f, "dead-letter as {reason:?}"),
            Self::Route => f.write_str("route"),
            Self::Write => f.write_str("route by a transaction"),
            Self::Renew => f.write_str("renew"),
            Self::Bare(Bare::Effect) => f.write_str("effects, on their own"),
            Self::Bare(Bare::Letter(_)) => f.write_str("a dead letter, on its own"),
            Self::Bare(Bare::Log(_)) => f.write_str("the log of attempts, on its own"),
            Self::Bare(Bare::FollowUp(_)) => f.write_str("a follow-up, on its own"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "its handler is done",
            Self::Failed => "its handler fails",
            Self::Rejected => "its handler rejects the event",
            Self::Unavailable => "its handler finds something unavailable",
            Self::Interrupted => "it is told to stop",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish => f.write_str("a producer publishes"),
            Self::Read(me, queue, fate) => write!(f, "{me} reads the {queue}{fate}"),
            Self::Reclaim(me, queue, id, fate) => {
                write!(f, "{me} reclaims entry {id} of the {queue}{fate}")
            }
            Self::Handle(me, outcome) => write!(f, "{me}: {outcome}"),
            Self::Check(me) => write!(f, "{me} begins a transaction and finds all as it should be"),
            Self::Send(me, fate) => write!(f, "{me} sends its script{fate}"),
            Self::Arrive(_) => f.write_str("a late request arrives"),
            Self::Renew(me) => write!(f, "{me} renews its lease"),
            Self::Freeze(queue, id) => {
                write!(f, "entry {id} of the {queue}: no sign of life for a lease")
            }
            Self::Crash(me) => write!(f, "{me} is killed"),
            Self::Depart(me) => write!(f, "{me} leaves"),
            Self::TakeOver(me, queue, of) => {
                write!(f, "{me} takes over what {of} had of the {queue}")
            }
            Self::Redrive(letter) => write!(f, "an operator redrives letter {letter}"),
            Self::Trim(oldest) => write!(f, "history older than entry {oldest} is to be trimmed"),
        }
    }
}

/// A path, a step per line; of a script its name.
pub(crate) fn tell(path: Path<State, Action>) -> Vec<String> {
    let step = |(state, action): (State, Option<Action>)| match action? {
        Action::Send(me, fate) => {
            let call = state.alive(me)?.holds?.request()?.call;
            Some(format!("{me} sends: {call}{fate}"))
        }
        Action::Arrive(at) => Some(format!("a late request arrives: {}", state.late[at].call)),
        other => Some(other.to_string()),
    };
    path.into_vec().into_iter().filter_map(step).collect()
}
