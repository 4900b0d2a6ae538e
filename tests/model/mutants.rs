//! Broken variants of the protocol, one departure each, and the property that each violates:
//! proof that the properties can be violated, and of why the protocol is as it is.

use super::bounds::*;
use super::invariants::*;

/// A departure from the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    AckBeforeEffect,
    EffectBeforeAck,
    NoFence,
    FenceWithoutConsumer,
    FenceWithoutCount,
    ParkLowersCount,
    TrimIgnoresPending,
    TrimIgnoresUndelivered,
    DropConsumerThatOwes,
    DeadLetterInTwoSteps,
    ChargedAfterwards,
    NoDedupeMark,
    RedriveKeepsLetter,
    ReclaimsTheLiving,
    RenewalCounts,
    StartsUnmarked,
    FollowUpFirst,
}

/// The mutants, where each shows, and what it violates.
pub(crate) const MUTANTS: [(Mutant, Bounds, &str); 17] = [
    (Mutant::AckBeforeEffect, any(1, DELIVERY), ONE_PLACE),
    (Mutant::EffectBeforeAck, any(1, DELIVERY), EFFECTS_ONCE),
    (Mutant::NoFence, any(1, DELIVERY), EFFECTS_ONCE),
    (Mutant::FenceWithoutConsumer, any(2, DELIVERY), ATTEMPTS),
    (Mutant::FenceWithoutCount, any(2, DELIVERY), ATTEMPTS),
    (Mutant::ParkLowersCount, any(2, DELIVERY), FENCED),
    (Mutant::TrimIgnoresPending, any(0, TRIMMING), TRIM_FLOOR),
    (Mutant::TrimIgnoresUndelivered, any(0, TRIMMING), TRIM_FLOOR),
    (Mutant::DropConsumerThatOwes, any(1, DELIVERY), ONE_PLACE),
    (Mutant::DeadLetterInTwoSteps, any(1, DELIVERY), ONE_PLACE),
    (Mutant::ChargedAfterwards, any(1, DELIVERY), ATTEMPTS),
    (Mutant::NoDedupeMark, any(0, DOOR), EFFECTS_ONCE),
    (Mutant::RedriveKeepsLetter, any(0, REDRIVING), NOT_BOTH),
    (Mutant::ReclaimsTheLiving, any(0, DELIVERY), LEASES),
    (Mutant::RenewalCounts, any(0, DELIVERY), LEASES),
    (Mutant::StartsUnmarked, POISONOUS, POISON),
    (Mutant::FollowUpFirst, any(1, FOLLOWING_UP), FOLLOW_UPS),
];
