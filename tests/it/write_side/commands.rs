//! A command is carried out once, wholly or not at all.

use streamfleet::commands::CommandError;

use super::*;

#[tokio::test]
async fn racing_commands_are_each_decided_on_what_the_others_left() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let racing = (0..40).map(|_| {
        let commands = commands.clone();
        tokio::spawn(async move {
            let done = commands.execute(command(), async |cx| book(cx, 1).await);
            done.await.unwrap().unwrap()
        })
    });
    let mut balances = Vec::new();
    for racer in racing.collect::<Vec<_>>() {
        balances.push(racer.await.unwrap());
    }
    balances.sort_unstable();
    assert_eq!(balances, (1..=40).collect::<Vec<_>>());
    assert_eq!(fleet.cli::<u64>("XLEN es:Account:7"), 40);
    assert_eq!(fleet.cli::<u64>("XLEN inbox"), 40);
}

#[tokio::test]
async fn a_command_given_twice_is_carried_out_once() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let same = command();
    let first = commands.execute(same, async |cx| book(cx, 5).await).await;
    assert_eq!(first.unwrap(), Some(5));
    let again = commands.execute(same, async |cx| book(cx, 5).await).await;
    assert_eq!(again.unwrap(), None);
    assert_eq!(fleet.cli::<u64>("XLEN es:Account:7"), 1);
    assert_eq!(fleet.cli::<u64>("XLEN inbox"), 1);
    // Remembered for as long as an event ID is.
    let left: u64 = fleet.cli(&format!("PTTL command:{}", same.id));
    assert!((86_000_000..=86_400_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_command_whose_twin_was_faster_changes_nothing() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let same = command();
    let racing = (0..8).map(|_| {
        let commands = commands.clone();
        tokio::spawn(async move { commands.execute(same, async |cx| book(cx, 5).await).await })
    });
    let mut told = Vec::new();
    for racer in racing.collect::<Vec<_>>() {
        told.extend(racer.await.unwrap().unwrap());
    }
    assert_eq!(told, [5], "the others learn that it was done");
    assert_eq!(fleet.cli::<u64>("XLEN es:Account:7"), 1);
    assert_eq!(fleet.cli::<u64>("XLEN inbox"), 1);
}

#[tokio::test]
async fn a_refused_command_leaves_no_trace() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let refused = commands
        .execute(command(), async |cx| {
            cx.set("note", "was here")?;
            book(cx, -1).await
        })
        .await;
    match refused {
        Err(CommandError::Refused(why)) => assert_eq!(why, "the account would be at -1"),
        other => panic!("{other:?}"),
    }
    // A key that is something else than the command takes it for.
    fleet.cli::<String>("SET teller:list text");
    let refused = commands
        .execute(command(), async |cx| {
            cx.hash_set("list", "a", "b")?;
            book(cx, 1).await
        })
        .await;
    match refused {
        Err(CommandError::Refused(why)) => {
            assert_eq!(why, "key teller:list is a string, expected a hash");
        }
        other => panic!("{other:?}"),
    }
    // An event that the router would refuse.
    let refused = commands
        .execute(command(), async |cx| {
            cx.publish("Test.Happened", &serde_json::json!({ "amount": -1 }))?;
            book(cx, 1).await
        })
        .await;
    assert!(
        matches!(refused, Err(CommandError::Failed(_))),
        "{refused:?}"
    );
    let keys: Vec<String> = fleet.cli("KEYS *");
    assert_eq!(keys, ["teller:list"]);
}

#[tokio::test]
async fn effects_of_commands_are_under_their_source_and_events_in_their_flow() {
    let fleet = Fleet::new();
    let _router = fleet.router("r");
    let commands = commands(&fleet).await;
    let given = command();
    let done = commands.execute(given, async |cx| {
        cx.set("note", "was here")?;
        book(cx, 5).await
    });
    done.await.unwrap();
    assert_eq!(fleet.cli::<String>("GET teller:note"), "was here");
    let event = crate::support::eventually("it is routed", || {
        let entries: Vec<(String, Vec<String>)> = fleet.cli("XRANGE test-events - +");
        entries.first().map(|(_, fields)| fields[7].clone())
    });
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    assert_eq!(event["correlation_id"], given.flow.to_string());
    assert_eq!(event["causation_id"], given.id.to_string());
    assert_eq!(event["source"], "teller");
}

/// Redis answers that it will not: then the command was not carried out, and nobody need wonder.
#[tokio::test]
async fn what_redis_refuses_is_not_done() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    fleet.cli::<String>("CONFIG SET maxmemory 1");
    let refused = commands
        .execute(command(), async |cx| book(cx, 5).await)
        .await;
    assert!(
        matches!(refused, Err(CommandError::NotDone(_))),
        "{refused:?}"
    );
    fleet.cli::<String>("CONFIG SET maxmemory 0");
    assert_eq!(fleet.cli::<Vec<String>>("KEYS *"), [""; 0]);
}

/// The twin makes it impossible before this one is decided: that is no refusal.
#[tokio::test]
async fn a_command_that_its_twin_made_impossible_was_done() {
    let fleet = Fleet::new();
    let commands = commands(&fleet).await;
    let done = commands.execute(command(), async |cx| book(cx, 5).await);
    done.await.unwrap();
    let same = command();
    let racing = (0..8).map(|_| {
        let commands = commands.clone();
        tokio::spawn(async move { commands.execute(same, async |cx| book(cx, -5).await).await })
    });
    let mut told = Vec::new();
    for racer in racing.collect::<Vec<_>>() {
        told.extend(racer.await.unwrap().unwrap());
    }
    assert_eq!(told, [0]);
    assert_eq!(fleet.cli::<u64>("XLEN es:Account:7"), 2);
}
