//! Broken variants of the protocol, one departure each, and the property that each violates:
//! proof that the properties can be violated, and of why the protocol is as it is.

use super::bounds::*;
use super::invariants::*;

/// A departure from the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The acknowledgement goes out before the effects.
    AckBeforeEffect,
    /// The effects go out before the acknowledgement.
    EffectBeforeAck,
    /// Follow-ups go out before the commit.
    FollowUpFirst,
    /// A dead letter is written, then the entry acknowledged.
    DeadLetterInTwoSteps,
    /// A failure is recorded only after the entry was parked.
    ChargedAfterwards,
    /// Scripts do not ask whether the delivery is still their sender's.
    NoFence,
    /// They ask for the count alone.
    FenceWithoutConsumer,
    /// They ask for the consumer alone.
    FenceWithoutCount,
    /// Parking starts the delivery count anew.
    ParkLowersCount,
    /// Reclaiming leaves the delivery count as it is (`JUSTID`).
    ReclaimKeepsCount,
    /// Renewing raises it (no `JUSTID`).
    RenewalCounts,
    /// Whatever is pending is reclaimed, idle or not.
    ReclaimsTheLiving,
    /// What died with its worker is not.
    ReclaimsOnlyTheParked,
    /// What lost its worker runs again without a mark.
    StartsUnmarked,
    /// Taking over does not note that a worker was lost.
    TakeOverForgetsLoss,
    /// A start that had an outcome stays marked.
    ParkKeepsMark,
    /// Settling leaves the record of attempts.
    RecordsOutlive,
    /// A leaving process deletes its consumer, whatever that owes.
    DropConsumerThatOwes,
    /// Trimming looks only at what is undelivered.
    TrimIgnoresPending,
    /// Trimming looks only at what is pending.
    TrimIgnoresUndelivered,
    /// Routed events are not noted as seen.
    NoDedupeMark,
    /// What conflicts with a seen event leaves the inbox, and that is all.
    ConflictUnrecorded,
    /// A redriven letter stays.
    RedriveKeepsLetter,
    /// A transaction is executed whatever its check says.
    Unchecked,
    /// The check does not ask what was seen.
    SeenUnchecked,
    /// A transaction does not notice that its entry was claimed.
    AttemptsUnwatched,
    /// Nor that its event was routed.
    SeenUnwatched,
}

/// One router, one worker, three attempts: for what needs a long run, but few processes.
const ALONE: Bounds = Bounds {
    processes: &[Role::Router, Role::Worker(0)],
    max_attempts: 3,
    ..any(1, DELIVERY)
};

/// The mutants, where each shows, and what it violates.
pub(crate) const MUTANTS: [(Mutant, Bounds, &str); 27] = [
    (Mutant::AckBeforeEffect, any(1, DELIVERY), ONE_PLACE),
    (Mutant::EffectBeforeAck, any(1, DELIVERY), EFFECTS_ONCE),
    (Mutant::FollowUpFirst, any(1, FOLLOWING_UP), FOLLOW_UPS),
    (Mutant::DeadLetterInTwoSteps, any(1, DELIVERY), ONE_PLACE),
    (Mutant::ChargedAfterwards, any(1, DELIVERY), ATTEMPTS),
    (Mutant::NoFence, any(1, DELIVERY), EFFECTS_ONCE),
    (Mutant::FenceWithoutConsumer, any(1, DELIVERY), FENCED),
    (Mutant::FenceWithoutCount, ALONE, ATTEMPTS),
    (Mutant::ParkLowersCount, any(1, DELIVERY), FENCED),
    (Mutant::ReclaimKeepsCount, any(1, DELIVERY), FENCED),
    (Mutant::RenewalCounts, DELIVERY, LEASES),
    (Mutant::ReclaimsTheLiving, DELIVERY, LEASES),
    (Mutant::ReclaimsOnlyTheParked, any(1, DELIVERY), SETTLES),
    (Mutant::StartsUnmarked, POISONOUS, POISON),
    (Mutant::TakeOverForgetsLoss, POISONOUS, POISON),
    (Mutant::ParkKeepsMark, ALONE, CRASHED),
    (Mutant::RecordsOutlive, DELIVERY, TIDY),
    (Mutant::DropConsumerThatOwes, any(1, DELIVERY), ONE_PLACE),
    (Mutant::TrimIgnoresPending, TRIMMING, TRIM_FLOOR),
    (Mutant::TrimIgnoresUndelivered, TRIMMING, TRIM_FLOOR),
    (Mutant::NoDedupeMark, DOOR, EFFECTS_ONCE),
    (Mutant::ConflictUnrecorded, DOOR, NOTHING_DROPPED),
    (Mutant::RedriveKeepsLetter, REDRIVING, NOT_BOTH),
    (Mutant::Unchecked, any(1, DOOR), FENCED),
    (Mutant::SeenUnchecked, DOOR, ONE_PLACE),
    (Mutant::AttemptsUnwatched, any(1, DOOR), FENCED),
    (Mutant::SeenUnwatched, DOOR, ONE_PLACE),
];

/// Mutants of scripts that the model has in common with Redis: run beside the real scripts,
/// each must be told apart from them.
pub(crate) const OF_SCRIPTS: [Mutant; 16] = [
    Mutant::NoFence,
    Mutant::FenceWithoutConsumer,
    Mutant::FenceWithoutCount,
    Mutant::ParkLowersCount,
    Mutant::ReclaimKeepsCount,
    Mutant::RenewalCounts,
    Mutant::ParkKeepsMark,
    Mutant::TakeOverForgetsLoss,
    Mutant::RecordsOutlive,
    Mutant::NoDedupeMark,
    Mutant::ConflictUnrecorded,
    Mutant::RedriveKeepsLetter,
    Mutant::Unchecked,
    Mutant::SeenUnchecked,
    Mutant::AttemptsUnwatched,
    Mutant::SeenUnwatched,
];
