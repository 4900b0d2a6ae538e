//! The write side of users: to exist, and to change. The append and the event are one step;
//! user-service knows the event when it comes, and appends it no second time.

use jiff::Timestamp;
use serde::Serialize;
use streamfleet::commands::{Command as Given, CommandError, Commands};
use uuid::Uuid;

use crate::account::{Account, Change, Command, Fact};
use crate::user_view;

/// `User.Created` or `User.Updated`.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    change: &'a Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Timestamp>,
}

/// Creates a user (a change that says when) or changes one; commands of user-service's own.
pub(crate) async fn change(commands: &Commands, change: Change) -> Result<(), CommandError> {
    let flow = Uuid::new_v5(
        &Uuid::NAMESPACE_OID,
        format!("user:{}", change.user_id).as_bytes(),
    );
    let decide = async |cx: &mut streamfleet::Context| {
        let at = Timestamp::now();
        let creates = change.created_at.is_some();
        let event_type = if creates {
            "User.Created"
        } else {
            "User.Updated"
        };
        let told = Told {
            change: &change,
            updated_at: (!creates).then_some(at),
        };
        // As of now, for the ID that this answers.
        let by = cx.publish_at(event_type, &told, at)?;
        let fact = Fact {
            at,
            by,
            commanded: true,
            change: change.clone(),
        };
        let command = if creates {
            Command::Create(fact)
        } else {
            Command::Change(fact)
        };
        let id = change.user_id.to_string();
        let user = cx.decide::<Account>(&id, command).await?;
        user_view::show(&id, &user.state, cx)?;
        Ok(())
    };
    commands
        .execute(Given::in_flow(flow), decide)
        .await
        .map(drop)
}
